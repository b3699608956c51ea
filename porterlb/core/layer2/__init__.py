"""Every decision of Layer 2, without I/O: events and times in, actions and verdicts out.

Times are arguments in monotonic seconds. ``porterlb/wire`` holds the sockets, timers and pipes.
"""
