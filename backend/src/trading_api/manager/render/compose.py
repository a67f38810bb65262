"""docker-compose: PostgreSQL, the bus, a one-shot migration, a service per server, nginx."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from trading_api.runtime.topology import ProcessSpec, Topology

CONTAINER_PORT = 8000
IMAGE = "trading-api:latest"
POSTGRES_IMAGE = "postgres:18"
BUS_IMAGE = "valkey/valkey:9"
NGINX_IMAGE = "nginx:1.31"

_HEAD = "# Rendered by `trading-api render` from {source}. Change the config, not this file.\n"
READY_COMMAND = (
    f"import urllib.request as r; r.urlopen('http://127.0.0.1:{CONTAINER_PORT}/readyz', timeout=2)"
)


def container_peers(topology: Topology, *, host_of: Mapping[str, str] | None = None) -> str:
    """Return `PEERS` for processes that reach one another by host name."""
    hosts = host_of or {}
    return ",".join(
        f"{module}=http://{hosts.get(server, server)}:{CONTAINER_PORT}"
        for module in topology.modules
        for server in [topology.processes_of(module)[0].server]
    )


def servers_of(topology: Topology) -> list[ProcessSpec]:
    """Return the first process of each server: where instances are replicas, one speaks for all."""
    return [process for process in topology.processes if process.index == 0]


def serve_command(process: ProcessSpec) -> list[str]:
    """Return what a container of this server runs."""
    command = ["trading-api", "serve", ",".join(process.modules)]
    command += ["--host", "0.0.0.0", "--port", str(CONTAINER_PORT)]  # noqa: S104 - in a container
    return command + (["--workers", str(process.workers)] if process.workers > 1 else [])


class ComposeRenderer:
    """Render `docker-compose.yml`."""

    name = "compose"

    def __init__(self, *, source: str) -> None:
        self._source = source

    def render(self, topology: Topology) -> Mapping[str, str]:
        """Return the one file."""
        document = {
            "name": "trading",
            "x-module": self._module_defaults(topology),
            "services": self._services(topology),
            "volumes": {name: {} for name in ("postgres", "bus", "state")},
        }
        text = yaml.safe_dump(document, sort_keys=False, width=100, allow_unicode=True)
        return {"docker-compose.yml": _HEAD.format(source=self._source) + text}

    def _module_defaults(self, topology: Topology) -> dict[str, Any]:
        return {
            "image": IMAGE,
            "restart": "unless-stopped",
            "read_only": True,
            "tmpfs": ["/tmp"],  # noqa: S108 - inside the container
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "stop_grace_period": "20s",
            "volumes": ["state:/var/lib/trading"],
            "environment": _environment(topology),
        }

    def _services(self, topology: Topology) -> dict[str, Any]:
        defaults = self._module_defaults(topology)
        services: dict[str, Any] = {
            "postgres": {
                "image": POSTGRES_IMAGE,
                "restart": "unless-stopped",
                "environment": {
                    "POSTGRES_USER": "trading",
                    "POSTGRES_DB": "trading",
                    "POSTGRES_PASSWORD": "${DB_PASSWORD:?set DB_PASSWORD}",
                },
                "volumes": ["postgres:/var/lib/postgresql"],
                "healthcheck": _check(["CMD-SHELL", "pg_isready -U trading -d trading"]),
            },
            "bus": {
                "image": BUS_IMAGE,
                "restart": "unless-stopped",
                "command": [
                    *("valkey-server", "--appendonly", "yes", "--appendfsync", "everysec"),
                    *("--save", "", "--maxmemory-policy", "noeviction"),
                ],
                "volumes": ["bus:/data"],
                "healthcheck": _check(["CMD", "valkey-cli", "ping"]),
            },
            "migrate": {
                **defaults,
                "build": {"context": ".", "dockerfile": "deploy/docker/Dockerfile"},
                "restart": "no",
                "command": ["trading-api", "migrate"],
                "depends_on": {"postgres": {"condition": "service_healthy"}},
            },
        }
        for process in servers_of(topology):
            services[process.server] = {
                **defaults,
                "command": serve_command(process),
                "deploy": {"replicas": len(topology.processes_of(process.modules[0]))},
                "healthcheck": _check(["CMD", "python", "-c", READY_COMMAND]),
                "depends_on": {
                    "migrate": {"condition": "service_completed_successfully"},
                    "bus": {"condition": "service_healthy"},
                },
            }
        services["nginx"] = self._nginx(topology)
        return services

    def _nginx(self, topology: Topology) -> dict[str, Any]:
        nginx = topology.config.nginx
        volumes = ["./deploy/docker/nginx:/etc/nginx/trading:ro"]
        if nginx.tls is not None:
            volumes.append("${TLS_DIRECTORY:-./deploy/tls}:/etc/trading/tls:ro")
        return {
            "image": NGINX_IMAGE,
            "restart": "unless-stopped",
            "command": ["nginx", "-c", "/etc/nginx/trading/nginx.conf"],
            "read_only": True,
            "tmpfs": ["/tmp"],  # noqa: S108 - inside the container
            "ports": [f"{nginx.port}:{nginx.port}"],
            "volumes": volumes,
            "depends_on": {
                process.server: {"condition": "service_healthy"} for process in servers_of(topology)
            },
        }


def _environment(topology: Topology) -> dict[str, str]:
    return {
        "ENVIRONMENT": topology.environment,
        "TRADING_CONFIG": "/app/deploy/production.yaml",
        "TRADING_LOCAL_DIR": "/var/lib/trading",
        "DB_HOST": "postgres",
        "DB_USER": "trading",
        "DB_NAME": "trading",
        "DB_PASSWORD": "${DB_PASSWORD:?set DB_PASSWORD}",
        "REDIS_HOST": "bus",
        "CORS_ORIGINS": "${CORS_ORIGINS:-}",
        "LOG_LEVEL": "${LOG_LEVEL:-INFO}",
        "AUTH_SITE_URL": "${AUTH_SITE_URL:-http://localhost:8000}",
        "AUTH_CONFIRM_EMAIL": "${AUTH_CONFIRM_EMAIL:-true}",
        "AUTH_MAIL_FROM": "${AUTH_MAIL_FROM:-no-reply@localhost}",
        "AUTH_SMTP_HOST": "${AUTH_SMTP_HOST:-}",
        "AUTH_SMTP_USERNAME": "${AUTH_SMTP_USERNAME:-}",
        "AUTH_SMTP_PASSWORD": "${AUTH_SMTP_PASSWORD:-}",
        # The network of this file holds nobody but us, and nginx overwrites what it forwards.
        "FORWARDED_ALLOW_IPS": "*",
        "PEERS": container_peers(topology),
    }


def _check(command: list[str]) -> dict[str, Any]:
    return {
        "test": command,
        "interval": "5s",
        "timeout": "3s",
        "retries": 12,
        "start_period": "10s",
    }
