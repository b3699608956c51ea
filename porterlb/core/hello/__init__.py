"""Hello: the datagram by which replicas tell one another that they are alive, and what they observe.

:mod:`value <porterlb.core.hello.value>`: its contents. :mod:`codec <porterlb.core.hello.codec>`: bytes and values.
:mod:`receiver <porterlb.core.hello.receiver>`: which hellos are accepted, and which replicas are fresh.
"""

from porterlb.core.hello.codec import MAX_DATAGRAM, Writer, claimed_node, decode, encode
from porterlb.core.hello.receiver import Change, Receiver
from porterlb.core.hello.value import GATEWAY, Assignment, Hello, HelloRefusal, SegmentState

__all__ = [
    "GATEWAY",
    "MAX_DATAGRAM",
    "Assignment",
    "Change",
    "Hello",
    "HelloRefusal",
    "Receiver",
    "SegmentState",
    "Writer",
    "claimed_node",
    "decode",
    "encode",
]
