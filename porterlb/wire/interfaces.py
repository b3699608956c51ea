"""The sockets on one network interface."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from porterlb.core.observed import Nic
from porterlb.wire.reply_listener import Heard, ReplyListener
from porterlb.wire.responder import Asked, Hearer, PacketResponder
from porterlb.wire.templates import Templates


class InterfaceSockets:
    """One interface in use: responder and reply listener. Raises OSError if a socket cannot be opened."""

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
    ) -> None:
        self.responder = PacketResponder(nic, templates, hearer, vips, count=count, loop=loop)
        try:
            self.replies = ReplyListener(nic, heard, hearer.failed, loop)
        except OSError:
            self.responder.close()
            raise

    def close(self) -> None:
        """Stops answering and listening."""
        self.responder.close()
        self.replies.close()
