"""The members whose hellos are refused, and the reasons, while they are recent enough to report."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from porterlb.core.hello import HelloRefusal, claimed_node
from porterlb.core.observed import Notice, NoticeKind

REFUSED_FOR = 10.0
"""Seconds for which a refusal is reported after the last refused hello."""
_KINDS: Mapping[HelloRefusal, NoticeKind] = {
    HelloRefusal.WRONG_KEY: NoticeKind.WRONG_KEY,
    HelloRefusal.REPLAY: NoticeKind.OLD_BOOT,
    HelloRefusal.VERSION: NoticeKind.OTHER_VERSION,
    HelloRefusal.OWN_NAME: NoticeKind.OWN_NAME,
}


class RefusedHellos:
    """Args:
    own: our node.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self._refused: dict[str, tuple[NoticeKind, float]] = {}  # reason, and time of the last one

    def add(
        self, refusal: HelloRefusal, data: bytes, members: Collection[str], fresh: Collection[str], now: float
    ) -> None:
        """A hello was refused. It is kept if it names a member that we do not hear, or our own node."""
        kind = _KINDS.get(refusal)
        node = claimed_node(data)
        mine = node == self._own
        if kind is None or node not in members or mine is not (refusal is HelloRefusal.OWN_NAME):
            return
        if mine or node not in fresh:
            self._refused[node] = (kind, now)

    @property
    def nodes(self) -> frozenset[str]:
        return frozenset(self._refused)

    def notices(self, fresh: Collection[str], now: float) -> list[Notice]:
        """The notices to report now. Older refusals are dropped."""
        self._refused = {node: (kind, at) for node, (kind, at) in self._refused.items() if now - at < REFUSED_FOR}
        found: list[Notice] = []
        for kind in _KINDS.values():
            named = [n for n, (why, _) in self._refused.items() if why is kind and (n == self._own or n not in fresh)]
            if named:
                found.append(Notice(kind, "", tuple(sorted(named))))
        return found
