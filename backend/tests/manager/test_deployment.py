import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from trading_api.manager import binaries
from trading_api.manager.deployment import check_nginx, check_supervisor, render_all
from trading_api.manager.render import find_differences, write_files

GOLDEN = Path(__file__).parents[1] / "golden" / "renders"

CONFIG = """
nginx:
  host: 0.0.0.0
  port: 443
  server_names: [trading.example.com]
  tls: {certificate: /etc/trading/tls/fullchain.pem, certificate_key: /etc/trading/tls/privkey.pem}
servers:
  gateway: {modules: [gateway], workers: 2}
  auth: {modules: [auth], instances: 2}
  prices: {modules: [datafeed]}
  broker: {modules: [broker], env: {BROKER_FEE: "1%"}}
  money: {modules: [wallet, copy-trading]}
"""


@pytest.fixture
def files(tmp_path, manifests):
    config = tmp_path / "production.yaml"
    config.write_text(CONFIG)
    return render_all(config, manifests)


def documents(files, folder):
    return [
        document
        for name, text in files.items()
        if name.startswith(folder)
        for document in yaml.safe_load_all(text)
    ]


def test_golden_renders_are_what_they_were(files):
    if os.environ.get("UPDATE_GOLDEN"):
        shutil.rmtree(GOLDEN, ignore_errors=True)
        write_files(GOLDEN, files)
    assert find_differences(GOLDEN, files) == []
    kept = {str(path.relative_to(GOLDEN)) for path in GOLDEN.rglob("*") if path.is_file()}
    assert kept == set(files)


def test_a_changed_or_missing_file_is_found(files, tmp_path):
    write_files(tmp_path, files)
    assert find_differences(tmp_path, files) == []
    (tmp_path / "docker-compose.yml").write_text("changed")
    (tmp_path / "nginx/upstreams/auth.conf").unlink()
    assert find_differences(tmp_path, files) == [
        tmp_path / "nginx/upstreams/auth.conf",
        tmp_path / "docker-compose.yml",
    ]
    assert len(write_files(tmp_path, files)) == 2
    assert write_files(tmp_path, files) == []


@pytest.mark.parametrize("folder", ["nginx/", "deploy/docker/nginx/"])
def test_nginx_accepts_what_production_gets(files, folder, tmp_path):
    ours = {n.removeprefix(folder): text for n, text in files.items() if n.startswith(folder)}
    assert check_nginx(ours, tmp_path / "nginx", nginx=binaries.bundled_nginx()) is None


def test_supervisord_accepts_what_production_gets(files, tmp_path):
    text = files["deploy/supervisor/supervisord.conf"]
    assert check_supervisor(text, tmp_path / "supervisor") is None
    assert "[program:auth_1_g1]" in text
    assert check_supervisor(text + "\n[program:x]\n", tmp_path / "broken") is not None


def test_containers_reach_one_another_by_the_name_of_their_server(files):
    compose = yaml.safe_load(files["docker-compose.yml"])
    services = compose["services"]
    assert services["money"]["command"][:3] == ["trading-api", "serve", "wallet,copy-trading"]
    assert services["auth"]["deploy"]["replicas"] == 2
    assert services["gateway"]["command"][-2:] == ["--workers", "2"]
    peers = dict(part.split("=") for part in services["auth"]["environment"]["PEERS"].split(","))
    assert peers["copy-trading"] == "http://money:8000"
    assert {url.split("//")[1].split(":")[0] for url in peers.values()} <= set(services)
    assert (
        "server prices:8000 max_fails=0 resolve;"
        in files["deploy/docker/nginx/upstreams/datafeed.conf"]
    )


def test_kustomization_names_every_resource_and_each_has_its_kind(files):
    folder = "deploy/kubernetes/base/"
    kustomization = yaml.safe_load(files[f"{folder}kustomization.yaml"])
    names = {name.removeprefix(folder) for name in files if name.startswith(folder)}
    assert set(kustomization["resources"]) == names - {"kustomization.yaml"}
    kinds = [document["kind"] for document in documents(files, folder)]
    assert kinds.count("Deployment") == kinds.count("Service") == 5
    assert {"Ingress", "NetworkPolicy", "Job", "ConfigMap"} <= set(kinds)


def test_ingress_sends_each_prefix_to_the_server_of_its_module(files):
    ingress = yaml.safe_load(files["deploy/kubernetes/base/ingress.yaml"])
    paths = {
        each["path"]: each["backend"]["service"]["name"]
        for each in ingress["spec"]["rules"][0]["http"]["paths"]
    }
    assert paths["/api/v1/subscriptions"] == "trading-money"
    assert paths["/api/v1/ws"] == "trading-prices"
    assert paths["/docs"] == "trading-gateway"
    assert not {path for path in paths if path.startswith(("/metrics", "/internal"))}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this host")
def test_systemd_accepts_its_units(files, tmp_path):
    folder = "deploy/systemd/"
    for name, text in files.items():
        if name.startswith(folder):
            for program in ("/opt/trading/venv/bin/trading-api", "/usr/sbin/nginx"):
                text = text.replace(program, "/bin/true")
            (tmp_path / name.removeprefix(folder)).write_text(text)
    (tmp_path / "trading-module@broker_0.service").symlink_to("trading-module@.service")
    units = ["trading.target", "trading-nginx.service", "trading-module@broker_0.service"]
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit) for unit in units)],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    ours = [line for line in answer.stderr.splitlines() if "trading" in line]
    assert ours == []
    assert "trading-module@auth_1.service" in files[f"{folder}trading.target"]


def test_no_file_holds_a_secret_or_the_hosts_environment(tmp_path, manifests, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://u:canary@h/db")
    monkeypatch.setenv("BACKEND_PORT", "12345")
    config = tmp_path / "production.yaml"
    config.write_text(CONFIG)
    text = "".join(render_all(config, manifests).values())
    assert "canary" not in text
    assert "12345" not in text
