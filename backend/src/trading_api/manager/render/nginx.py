"""nginx: the one public door, rendered for any nginx from 1.22 on.

What lives here: where each path goes, which headers cross the edge, the limits, and the JSON body
of each error that nginx itself answers. What does not: running nginx (`manager.fleet`).
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trading_api.manager.render import quote_nginx, render_template
from trading_api.runtime.topology import Address, ProcessSpec, Topology

INTERNAL_PATHS = ("/metrics", "/internal", "/livez", "/readyz")

# Guessing these costs an attacker little and us a password hash or a mail each.
_GUARDED_PATHS = ("login", "register", "password/forgot", "password/reset", "email/resend")
# The last segment of routes that answer slowly on purpose: streams, long polls and exports.
_LONG_PATHS = ("stream", "streaming", "poll", "export")

# Internal headers that a module might trust must not come from outside; `Proxy` is httpoxy.
_CLEARED_HEADERS = (
    "Forwarded",
    "Proxy",
    "X-HTTP-Method-Override",
    "X-Internal-Caller",
    "X-Internal-Token",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-User-Email",
    "X-User-Id",
    "X-User-Roles",
    "X-User-Scopes",
)


_STRICT_TRANSPORT = (
    'add_header Strict-Transport-Security "max-age=31536000; includeSubDomains" always;'
)


_TLS_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)


@dataclass(frozen=True, slots=True)
class EdgeError:
    """One error that nginx answers itself, in both dialects."""

    status: int
    code: str
    title: str
    detail: str
    retry_after_seconds: int | None = None

    @property
    def problem(self) -> str:
        """Return the RFC 9457 body; the request id is filled in by nginx."""
        body = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": "$platform_request_id",
        }
        return json.dumps(body, separators=(",", ":"))

    @property
    def udf(self) -> str:
        """Return the body that a UDF client understands."""
        return json.dumps({"s": "error", "errmsg": self.detail}, separators=(",", ":"))


EDGE_ERRORS = (
    EdgeError(400, "edge.request.malformed", "Malformed request", "The request is malformed."),
    EdgeError(403, "edge.request.forbidden", "Forbidden", "This is not allowed."),
    EdgeError(404, "edge.path.not_found", "Not found", "Nothing is at this path."),
    EdgeError(405, "edge.method.not_allowed", "Method not allowed", "This method is not allowed."),
    EdgeError(408, "edge.request.timed_out", "Request timeout", "The request came too slowly."),
    EdgeError(411, "edge.request.length_required", "Length required", "Send a Content-Length."),
    EdgeError(413, "edge.request.too_large", "Content too large", "The request body is too large."),
    EdgeError(414, "edge.request.uri_too_long", "URI too long", "The URL is too long."),
    EdgeError(421, "edge.host.unknown", "Misdirected request", "This host is not served here."),
    EdgeError(429, "edge.request.rate_limited", "Too many requests", "Slow down and retry.", 1),
    EdgeError(500, "edge.server.failed", "Internal server error", "The server failed."),
    EdgeError(501, "edge.request.not_implemented", "Not implemented", "This is not supported."),
    EdgeError(502, "edge.module.unavailable", "Bad gateway", "The module is restarting.", 1),
    EdgeError(503, "edge.server.overloaded", "Service unavailable", "The server is busy.", 1),
    EdgeError(504, "edge.module.timed_out", "Gateway timeout", "The module did not answer.", 1),
)
# nginx's own statuses for headers too large, bad certificates and plain HTTP on the TLS port.
_ANSWERED_AS_400 = (494, 495, 496, 497)


@dataclass(frozen=True, slots=True)
class NginxLayout:
    """Where nginx keeps its files, and how it reaches a process.

    `resolver` is a name server asked again and again where processes are reached by names whose
    addresses change; it needs nginx ≥ 1.27.3. None: names are looked up once.
    """

    pid_file: str
    temp_path: str
    access_log: str
    error_log: str
    user: str | None
    in_container: bool
    resolver: str | None
    address_of: Callable[[ProcessSpec], Address]
    source: str


def local_layout(topology: Topology, *, source: str) -> NginxLayout:
    """Return the layout of a fleet on this host, under its run and log folders."""
    run = topology.paths.run
    return NginxLayout(
        pid_file=str(run / "nginx.pid"),
        temp_path=str(run / "nginx" / "temp"),
        access_log=str(topology.paths.log / "nginx-access.log"),
        error_log="stderr",
        user=_worker_user(run),
        in_container=False,
        resolver=None,
        address_of=lambda process: process.address,
        source=source,
    )


class NginxRenderer:
    """Render `nginx.conf` and one upstream file per module."""

    name = "nginx"

    def __init__(self, layout: NginxLayout) -> None:
        self._layout = layout

    def render(self, topology: Topology) -> Mapping[str, str]:
        """Return `nginx.conf` and `upstreams/<module>.conf`."""
        files = {"nginx.conf": self._main(topology)}
        for module in topology.modules:
            files[f"upstreams/{module}.conf"] = self.render_upstream(topology, module)
        return files

    def render_upstream(self, topology: Topology, module: str) -> str:
        """Return the upstream file of one module; replacing it and a reload switches traffic."""
        addresses = dict.fromkeys(
            _upstream_address(self._layout.address_of(process))
            for process in topology.processes_of(module)
        )
        return render_template(
            "nginx_upstream.conf.j2",
            module=module,
            addresses=list(addresses),
            resolves=self._layout.resolver is not None,
            source=self._layout.source,
        )

    def _main(self, topology: Topology) -> str:
        config = topology.config
        nginx = config.nginx
        default_port = 443 if nginx.tls else 80
        host_header = "$host" if nginx.port == default_port else f"$host:{nginx.port}"
        return _tidy(
            render_template(
                "nginx.conf.j2",
                source=self._layout.source,
                user=self._layout.user,
                pid_file=self._layout.pid_file,
                temp_path=self._layout.temp_path,
                access_log=self._layout.access_log,
                error_log=self._layout.error_log,
                in_container=self._layout.in_container,
                resolver=self._layout.resolver,
                nginx=nginx,
                limits=nginx.limits,
                websocket=config.websocket,
                api_base_url=config.api_base_url,
                modules=topology.modules,
                routes=topology.routes,
                has_gateway="gateway" in topology.modules,
                internal_paths=INTERNAL_PATHS,
                guarded_paths=_GUARDED_PATHS,
                long_paths=_LONG_PATHS,
                udf_prefixes=[
                    f"{prefix}/udf"
                    for route in topology.routes
                    if route.name == "datafeed"
                    for prefix in route.prefixes
                ],
                shared_websocket=_shared_websocket(topology),
                statuses=EDGE_ERRORS,
                answered_as_400=_ANSWERED_AS_400,
                error_locations=render_template(
                    "nginx_errors.j2",
                    statuses=EDGE_ERRORS,
                    headers=lambda error: _headers(error, with_tls=nginx.tls is not None),
                ).rstrip(),
                forwarded_headers=_forwarded_headers(host_header),
                host_header=host_header,
                listen=f"{nginx.host}:{nginx.port}" + (" ssl http2" if nginx.tls else ""),
                tls_block=_tls_block(topology),
            )
        )


def _shared_websocket(topology: Topology) -> list[tuple[str, str]]:
    current = topology.config.api_base_url
    paths = {
        route.name: path
        for route in topology.routes
        for path in route.websocket_paths
        if path.startswith(current + "/")
    }
    entries = list(paths.items())
    if "datafeed" in paths:
        entries.insert(0, ("", paths["datafeed"]))
    return entries


def _forwarded_headers(host_header: str) -> list[tuple[str, str]]:
    # Overwritten, never appended: what a client claims about itself stops here.
    overwritten = [
        ("X-Real-IP", "$remote_addr"),
        ("X-Forwarded-For", "$remote_addr"),
        ("X-Forwarded-Proto", "$scheme"),
        ("X-Forwarded-Host", host_header),
        ("X-Forwarded-Port", "$server_port"),
    ]
    return overwritten + [(name, '""') for name in _CLEARED_HEADERS]


def _headers(error: EdgeError, *, with_tls: bool) -> str:
    lines = [
        "add_header X-Request-Id $platform_request_id always;",
        "add_header X-Content-Type-Options nosniff always;",
        "add_header Cache-Control no-store always;",
    ]
    if with_tls:
        lines.append(_STRICT_TRANSPORT)
    if error.retry_after_seconds is not None:
        lines.append(f"add_header Retry-After {error.retry_after_seconds} always;")
    return "\n".join(f"            {line}" for line in lines)


def _tls_block(topology: Topology) -> str:
    tls = topology.config.nginx.tls
    if tls is None:
        return ""
    lines = [
        f"ssl_certificate {quote_nginx(tls.certificate)};",
        f"ssl_certificate_key {quote_nginx(tls.certificate_key)};",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        f"ssl_ciphers {':'.join(_TLS_CIPHERS)};",
        "ssl_prefer_server_ciphers off;",
        "ssl_session_cache shared:tls:10m;",
        "ssl_session_timeout 1d;",
        "ssl_session_tickets off;",
        "proxy_hide_header Strict-Transport-Security;",
        _STRICT_TRANSPORT,
    ]
    return "\n".join(f"        {line}" for line in lines)


def _upstream_address(address: Address) -> str:
    if address.socket is not None:
        return f"unix:{address.socket}"
    return f"{address.host}:{address.port}"


def _worker_user(run: Path) -> str | None:
    """Return whom the workers run as where we are root: the owner of the run folder."""
    if os.geteuid() != 0:
        return None
    owner = run.stat().st_uid if run.exists() else os.geteuid()
    return pwd.getpwuid(owner).pw_name


def _tidy(text: str) -> str:
    """Drop the blank lines that empty blocks leave behind."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.strip() or (lines and lines[-1]):
            lines.append(line.rstrip())
    return "\n".join(lines) + "\n"
