"""A default gateway that survives the loss of one router: routers of one subnet share its address by VRRP (RFC
5798)."""

from __future__ import annotations

from collections.abc import Mapping

from lab.host import Nic
from lab.routers import Router

ADVERTS = 0.03
"""Seconds between two advertisements. Another router takes over after three missing ones plus about 20 ms (the
skew)."""

# Announced again each second: after two routers were both masters, a node may have the wrong MAC.
CONFIG = """\
global_defs {{
    router_id {name}
    vrrp_version 3
    vrrp_garp_master_refresh 1
}}
vrrp_instance v4 {{
    state BACKUP
    interface {card}
    virtual_router_id 4
    priority {priority}
    advert_int {adverts}
    virtual_ipaddress {{
        {v4}/24
    }}
}}
vrrp_instance v6 {{
    state BACKUP
    interface {card}
    virtual_router_id 6
    priority {priority}
    advert_int {adverts}
    virtual_ipaddress {{
        fe80::6/64
        {v6}/64
    }}
}}
"""


def start(shared: Mapping[Router, Nic]) -> None:
    """Starts keepalived on these routers, for the address that each has on its first card. Earlier routers have
    precedence."""
    for number, (router, nic) in enumerate(shared.items()):
        files = router.files / "keepalived"
        files.mkdir()
        config = files / "keepalived.conf"
        card = router.nics[0].name
        config.write_text(
            CONFIG.format(name=router.name, card=card, priority=200 - number, adverts=ADVERTS, v4=nic.v4, v6=nic.v6)
        )
        argv = ["keepalived", "--dont-fork", "--log-console", "--vrrp", f"--use-file={config}"]
        router.start("keepalived", [*argv, f"--pid={files}/pid", f"--vrrp_pid={files}/vrrp.pid"])
