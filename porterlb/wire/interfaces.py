"""The sockets on one network interface."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from porterlb.core.observed import Nic
from porterlb.wire.kernel_answers import KernelAnswers, Loader
from porterlb.wire.reply_listener import Heard, ReplyListener
from porterlb.wire.responder import Asked, Hearer, PacketResponder
from porterlb.wire.templates import Templates


class InterfaceSockets:
    """One interface in use: responder and reply listener. Raises OSError if a socket cannot be opened.

    ``kernel``: the responder in the kernel, before the other one; None if user space answers everything.
    """

    def __init__(
        self,
        nic: Nic,
        templates: Templates,
        hearer: Hearer,
        vips: Mapping[bytes, Asked],
        *,
        heard: Heard,
        count: Callable[[str, int], None],
        loop: asyncio.AbstractEventLoop,
        loader: Loader | None = None,
    ) -> None:
        self.nic = nic
        self.responder = PacketResponder(nic, templates, hearer, vips, count=count, loop=loop)
        try:
            self.replies = ReplyListener(nic, heard, hearer.failed, loop)
        except OSError:
            self.responder.close()
            raise
        self._hearer = hearer
        self._vips = vips
        self.kernel = KernelAnswers(nic, loader, count, loop.time()) if loader is not None else None

    def own(self, address: bytes, mac: bytes, by_asker: bool) -> None:
        """From now on, answers for ``address`` with ``mac``; ``by_asker``: see :class:`actions.Own`."""
        self.responder.own(address, mac)
        if self.kernel is None:
            return
        if by_asker:
            self.kernel.disown(address)
        else:
            self.kernel.own(address, mac)

    def disown(self, address: bytes) -> None:
        """No longer answers for ``address``; does nothing if it was not owned."""
        if self.kernel is not None:
            self.kernel.disown(address)
        self.responder.disown(address)

    @property
    def heard_at(self) -> float:
        """When a request last arrived, from any host: the link received then."""
        return max(self.responder.heard_at, self.kernel.heard_at if self.kernel is not None else 0.0)

    def count_unread(self, now: float) -> None:
        """Notes whether questions arrived that this process did not read."""
        self.responder.count_unread(now)
        if self.kernel is not None:
            self.kernel.count(now)

    def read_asked(self, now: float) -> None:
        """Notes which VIPs hosts have asked the kernel for."""
        for question in self.kernel.asked() if self.kernel is not None else ():
            if question.sender in self._vips:
                self._hearer.claimed(question.sender, question.mac)
            vip = self._vips.get(question.target)
            if vip is not None:
                vip.ask(question, True, now)

    def close(self) -> None:
        """Stops answering and listening."""
        if self.kernel is not None:
            self.kernel.close()
        self.responder.close()
        self.replies.close()
