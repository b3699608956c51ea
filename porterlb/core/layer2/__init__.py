"""Every decision of Layer 2, without input or output: events and times in, actions and verdicts out.

Times are arguments in monotonic seconds. ``porterlb/wire`` holds the sockets, timers and pipes around it.
"""
