"""Hello as spoken and heard: who of the members is fresh."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from porterlb.core.hello import Change, Hello, Receiver
from porterlb.core.model import Member
from porterlb.core.observed import FreshReplica
from porterlb.core.wire_text import WireConfig
from porterlb.wire.greeter import Greeter


class Conversation:
    """Says our hello and judges the freshness of the others.

    Args:
        left: called with a replica that is not fresh any more.
        news: called with the hello of a replica that is new or says something new; and whether it is new.
        others_heard: when anything but a hello was last heard (monotonic seconds). While nothing at all is heard, it
            is rather our own link that is silent, and nobody is given up for a while.
        doubt: whether we doubt ourselves: then nobody is given up.
    """

    def __init__(
        self,
        config: WireConfig,
        loop: asyncio.AbstractEventLoop,
        *,
        left: Callable[[str], None],
        news: Callable[[Hello, bool], None],
        others_heard: Callable[[], float],
        doubt: Callable[[], bool],
        count: Callable[[str, int], None],
    ) -> None:
        self._config = config
        self._loop = loop
        self._left = left
        self._news = news
        self._others_heard = others_heard
        self._doubt = doubt
        self._count = count
        self._receiver = Receiver(config.node, config.key, config.hello_fresh)
        self._greeter: Greeter | None = None
        self._members: Mapping[str, Member] = {}
        self._sequence = 0
        self._expiry: asyncio.TimerHandle | None = None
        self.last_heard = 0.0
        self.trouble = ""

    @property
    def fresh(self) -> dict[str, FreshReplica]:
        return self._receiver.fresh

    @property
    def hellos(self) -> tuple[Hello, ...]:
        """The last hello of each fresh replica."""
        return self._receiver.hellos

    def heard_since(self, moment: float) -> tuple[Hello, ...]:
        """As ``hellos``, of those that were heard at ``moment`` or later."""
        return self._receiver.heard_since(moment)

    def set_members(self, members: Mapping[str, Member]) -> None:
        self._members = members
        gone = self._receiver.set_members(members)
        if self._greeter is not None:
            self._greeter.set_members(self._config.node, members)
        for node in gone:
            self._left(node)

    def open(self) -> None:
        """Opens the sockets, if they are not open yet; why not is in ``trouble``."""
        if self._greeter is not None:
            return
        port = self._config.hello_port
        try:
            self._greeter = Greeter(self._config.hello_address, port, self._config.key, self._heard, self._loop)
        except OSError as error:
            self.trouble = f"cannot say hello on UDP port {port}: {error.strerror or error}"
            return
        self.trouble = ""
        self._greeter.set_members(self._config.node, self._members)

    def say(self, hello: Hello) -> None:
        """Says it to every member, with the boot number and the next sequence number filled in."""
        member = self._members.get(self._config.node)
        if self._greeter is None or member is None:
            return
        self._sequence = max(self._sequence + 1, time.monotonic_ns())  # rises also after a respawn in the same boot
        sent, refused = self._greeter.say(replace(hello, boot=member.boot, sequence=self._sequence))
        self._count("hellos_sent", sent)
        self._count("hellos_refused_by_kernel", refused)

    def drain(self) -> None:
        """Takes in what has come, now."""
        if self._greeter is not None:
            self._greeter.drain()

    def _heard(self, data: bytes) -> None:
        now = self._loop.time()
        change = self._receiver.receive(data, now)
        if not isinstance(change, Change):
            self._count(f"hellos_{change.value}", 1)
            return
        self.last_heard = now
        self._count("hellos_heard", 1)
        if change.left:
            self._left(change.hello.node)
        elif change.news:
            self._news(change.hello, change.came)
        self._arm()

    def _arm(self) -> None:
        when = self._receiver.next_expiry()
        if when is not None and self._expiry is None:
            self._expiry = self._loop.call_at(when, self._expire, when)

    def _expire(self, due: float) -> None:
        """Gives replicas up that are silent: not while we stall, nor while nothing at all is heard."""
        self._expiry = None
        now = self._loop.time()
        self.drain()
        when = self._receiver.next_expiry()
        if when is None:
            return
        interval, fresh = self._config.hello_interval, self._config.hello_fresh
        latest = max(self.last_heard, self._others_heard())
        silence_all_around = latest <= when - fresh + interval and now < when + 2 * fresh
        if when <= now and (now - due > interval / 2 or silence_all_around or self._doubt()):
            again = now + interval / 2
            self._expiry = self._loop.call_at(again, self._expire, again)
            return
        for node in self._receiver.expire(now):
            self._left(node)
        self._arm()
