import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import crossplane
import pytest

from trading_api.manager import binaries
from trading_api.manager.deployment import check_nginx
from trading_api.manager.render import write_files
from trading_api.manager.render.nginx import NginxRenderer, local_layout
from trading_api.runtime.topology import Topology


def render(topology: Topology) -> dict[str, str]:
    for folder in (topology.paths.run / "nginx" / "temp", topology.paths.log):
        folder.mkdir(parents=True, exist_ok=True)
    return dict(NginxRenderer(local_layout(topology, source="test.yaml")).render(topology))


def written(topology: Topology) -> Path:
    folder = topology.paths.run / "nginx"
    write_files(folder, render(topology))
    return folder / "nginx.conf"


def nginx_binaries() -> list[Path]:
    found = {binaries.bundled_nginx(), binaries.find_nginx({})}
    return sorted(found)


TLS = """
nginx:
  port: 443
  server_names: [trading.example.com, "*.example.org"]
  tls: {certificate: /etc/trading/tls/fullchain.pem, certificate_key: /etc/trading/tls/privkey.pem}
"""


@pytest.mark.parametrize("nginx", nginx_binaries(), ids=str)
def test_nginx_accepts_its_configuration(build, nginx):
    config = written(build())
    answer = subprocess.run(
        [nginx, "-t", "-p", config.parent, "-c", config, "-e", "stderr"],
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    assert "[warn]" not in answer.stderr


def test_nginx_accepts_tls_and_strict_limits(build, config_text, tmp_path):
    topology = build(config_text.replace("nginx: {port: 18080}", TLS))
    folder = tmp_path / "nginx"
    assert check_nginx(render(topology), folder, nginx=binaries.bundled_nginx()) is None
    text = (folder / "nginx.conf").read_text()
    assert "listen 127.0.0.1:443 ssl http2" in text
    assert "proxy_set_header Host $host;" in text
    assert text.count("Strict-Transport-Security") > 10


def test_crossplane_reads_every_file(build):
    config = written(build())
    parsed = crossplane.parse(str(config))
    assert parsed["status"] == "ok", parsed["errors"]
    assert len(parsed["config"]) == 1 + len(build().modules)


@pytest.mark.parametrize("nginx_section", ["nginx: {port: 18080}", TLS], ids=["plain", "tls"])
def test_gixy_finds_nothing(build, config_text, nginx_section):
    config = written(build(config_text.replace("nginx: {port: 18080}", nginx_section)))
    gixy = Path(sys.executable).parent / "gixy-next"
    answer = subprocess.run([gixy, "-f", "json", config], capture_output=True, text=True)
    assert answer.stderr == ""
    assert json.loads(answer.stdout) == []


def directives(block: list[dict[str, Any]], name: str) -> list[list[str]]:
    return [each["args"] for each in block if each["directive"] == name]


def all_locations(block: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for each in block:
        if each["directive"] == "location":
            found.append(each)
        found += all_locations(each.get("block") or [])
    return found


def locations_of(config: Path) -> list[dict[str, Any]]:
    parsed = crossplane.parse(str(config), combine=True)
    return all_locations(parsed["config"][0]["parsed"])


def test_every_proxied_location_keeps_connections_alive_and_overwrites_headers(build):
    proxied = [
        each["block"]
        for each in locations_of(written(build()))
        if directives(each["block"], "proxy_pass")
    ]
    assert len(proxied) > 30
    for block in proxied:
        headers = dict(directives(block, "proxy_set_header"))
        assert directives(block, "proxy_http_version") == [["1.1"]]
        assert headers["Connection"] in {"", "$upgrade_connection"}
        assert headers["X-Forwarded-For"] == "$remote_addr"
        assert headers["X-Request-Id"] == "$platform_request_id"
        assert headers["X-User-Id"] == ""
        assert headers["X-Internal-Token"] == ""


def test_read_timeouts_fit_the_kind_of_path(build):
    timeouts = {
        " ".join(each["args"]): directives(each["block"], "proxy_read_timeout")[0][0]
        for each in locations_of(written(build()))
        if directives(each["block"], "proxy_read_timeout")
    }
    assert timeouts["= /api/v1/broker/ws"] == "75s"
    assert timeouts["/api/v1/broker/"] == "15s"
    assert timeouts["~ /(?:stream|streaming|poll|export)/?$"] == "300s"


def test_upstream_file_names_the_generation_alone(build):
    topology = build()
    renderer = NginxRenderer(local_layout(topology, source="test.yaml"))
    before, after = (
        renderer.render(topology),
        renderer.render(topology.with_generation({"broker_0": 2})),
    )
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ["upstreams/broker.conf"]
    assert "broker_0_g2.sock max_fails=0;" in after["upstreams/broker.conf"]


def test_query_param_names_the_module_of_the_shared_socket(build, config_text):
    text = config_text + "websocket: {routing_strategy: query_param, query_param_name: module}\n"
    main = render(build(text))["nginx.conf"]
    assert "map $arg_module $shared_websocket {" in main
    assert '"" /api/v1/datafeed/ws;' in main
    assert '"broker" /api/v1/broker/ws;' in main
    assert "location = /api/v1/ws {" in main


def test_path_with_blanks_and_quotes_is_accepted(build, tmp_path):
    root = tmp_path / 'a b; "c'
    config = written(build(root=root))
    answer = subprocess.run(
        [binaries.bundled_nginx(), "-t", "-p", config.parent, "-c", config, "-e", "stderr"],
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
