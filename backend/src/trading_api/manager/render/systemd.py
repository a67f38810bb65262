"""systemd: one template unit for every process, one for nginx, a target that holds them."""

from __future__ import annotations

from collections.abc import Mapping

from trading_api.manager.render import render_template
from trading_api.runtime.topology import Topology

PROGRAM = "/opt/trading/venv/bin/trading-api"
NGINX = "/usr/sbin/nginx"


class SystemdRenderer:
    """Render `trading.target`, `trading-module@.service` and `trading-nginx.service`."""

    name = "systemd"

    def __init__(self, *, source: str) -> None:
        self._source = source

    def render(self, topology: Topology) -> Mapping[str, str]:
        """Return the three units."""
        values = {
            "source": self._source,
            "processes": [process.name for process in topology.processes],
            "local": str(topology.paths.run.parent),
            "peers": topology.declared_peers(),
            "program": PROGRAM,
            "nginx": NGINX,
        }
        names = ("trading.target", "trading-module@.service", "trading-nginx.service")
        return {name: render_template(f"{name}.j2", **values) for name in names}
