"""Production's deployment files: rendered from `deploy/production.yaml` and committed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from trading_api.manager import binaries
from trading_api.manager.render import Renderer
from trading_api.manager.render.compose import CONTAINER_PORT, ComposeRenderer
from trading_api.manager.render.kubernetes import KubernetesRenderer
from trading_api.manager.render.nginx import NginxLayout, NginxRenderer
from trading_api.manager.render.supervisor import SupervisorLayout, SupervisorRenderer
from trading_api.manager.render.systemd import NGINX, SystemdRenderer
from trading_api.runtime.topology import (
    Address,
    LocalPaths,
    ManifestLike,
    build_topology,
    load_config,
)

STATE_FOLDER = Path("/var/lib/trading")
# What a production host or cluster always sets; the values don't reach any file.
_PRODUCTION_ENVIRON = {"ENVIRONMENT": "production", "DB_HOST": "postgres"}


def checkout() -> Path:
    """Return the root of the checkout that this package lies in."""
    return Path(__file__).resolve().parents[4]


def default_config() -> Path:
    """Return production's config in the checkout."""
    return checkout() / "deploy" / "production.yaml"


def render_all(
    config_path: Path, manifests: Sequence[ManifestLike] | None = None
) -> dict[str, str]:
    """Return every committed deployment file by its path in the checkout.

    The host's environment plays no part, so that a render is the same on every machine.

    Args:
        config_path: production's config.
        manifests: of the modules; None: of all built-in ones.

    Raises:
        ConfigurationError: the config is wrong.
    """
    config = load_config(config_path, environ={})
    if manifests is None:
        from trading_api.runtime import registry

        # Third-party modules of this machine don't belong into committed files.
        found = registry.discover(group="trading_api.no_entry_points")
        manifests = [module.manifest for module in found.values()]
    topology = build_topology(
        config,
        manifests,
        paths=LocalPaths.under(STATE_FOLDER),
        environ=_PRODUCTION_ENVIRON,
        source=str(config_path),
    )
    source = f"deploy/{config_path.name}"
    files: dict[str, str] = {}
    for folder, renderer in _renderers(source):
        files |= {f"{folder}{name}": text for name, text in renderer.render(topology).items()}
    return files


def validate(files: Mapping[str, str]) -> None:
    """Let nginx and supervisord read what was rendered, in a temporary folder.

    Raises:
        ValueError: with what they said.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        problem = check_nginx(
            {path.removeprefix("nginx/"): text for path, text in files.items()
             if path.startswith("nginx/")},
            root / "nginx",
            nginx=binaries.bundled_nginx(),
        )  # fmt: skip
        problem = problem or check_supervisor(
            files["deploy/supervisor/supervisord.conf"], root / "supervisor"
        )
    if problem:
        raise ValueError(problem)


def check_nginx(files: Mapping[str, str], folder: Path, *, nginx: Path) -> str | None:
    """Run `nginx -t` on rendered files, with a throw-away certificate and folders.

    Returns:
        What nginx said where it refuses them, else None.
    """
    (folder / "temp").mkdir(parents=True)
    certificate, key = _throw_away_certificate(folder)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for tls_path, ours in (("fullchain.pem", certificate), ("privkey.pem", key)):
            text = text.replace(f"/etc/trading/tls/{tls_path}", str(ours))
        text = text.replace(f"{STATE_FOLDER}/run/nginx/temp", str(folder / "temp"))
        text = text.replace(f"{STATE_FOLDER}/log/", f"{folder}/").replace("user trading;", "")
        text = text.replace(f"{STATE_FOLDER}/run/nginx.pid", f"{folder}/nginx.pid")
        # The names of containers don't resolve on this host.
        here = f".localhost:{CONTAINER_PORT} max_fails"
        text = text.replace(f":{CONTAINER_PORT} max_fails", here)
        path.write_text(text)
    command = [str(nginx), "-t", "-q", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    answer = subprocess.run(
        [*command, "-e", "stderr"], capture_output=True, text=True, check=False, timeout=20
    )
    return None if answer.returncode == 0 else answer.stderr.strip()


def check_supervisor(text: str, folder: Path) -> str | None:
    """Let supervisord read its rendered configuration without starting anything.

    Returns:
        What it said where it refuses it, else None.
    """
    folder.mkdir(parents=True)
    config = folder / "supervisord.conf"
    config.write_text(
        text.replace(str(STATE_FOLDER / "log"), str(folder)).replace(str(STATE_FOLDER), str(folder))
    )
    (folder / "run").mkdir()
    program = "import sys, supervisor.options as o; o.ServerOptions().realize(sys.argv[1:])"
    answer = subprocess.run(
        [sys.executable, "-c", program, "-c", str(config), "-n"],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    return None if answer.returncode == 0 else answer.stderr.strip()


def _renderers(source: str) -> list[tuple[str, Renderer]]:
    supervisor = SupervisorLayout(
        python="/opt/trading/venv/bin/python",
        directory=str(STATE_FOLDER),
        nginx=NGINX,
        nginx_folder="/etc/trading/nginx",
        bus_server=None,
        setpriv="/usr/bin/setpriv",
        user=None,
        config="/etc/trading/production.yaml",
        source=source,
        declares_peers=True,
    )
    return [
        ("nginx/", NginxRenderer(_host_layout(source))),
        ("deploy/docker/nginx/", NginxRenderer(_container_layout(source))),
        ("deploy/supervisor/", SupervisorRenderer(supervisor)),
        ("deploy/systemd/", SystemdRenderer(source=source)),
        ("deploy/kubernetes/base/", KubernetesRenderer(source=source)),
        ("", ComposeRenderer(source=source)),
    ]


def _host_layout(source: str) -> NginxLayout:
    return NginxLayout(
        pid_file=f"{STATE_FOLDER}/run/nginx.pid",
        temp_path=f"{STATE_FOLDER}/run/nginx/temp",
        access_log=f"{STATE_FOLDER}/log/nginx-access.log",
        error_log="stderr",
        user="trading",
        in_container=False,
        resolver=None,
        address_of=lambda process: process.address,
        source=source,
    )


def _container_layout(source: str) -> NginxLayout:
    return NginxLayout(
        pid_file="/tmp/nginx.pid",  # noqa: S108 - inside the container, a tmpfs of its own
        temp_path="/tmp",  # noqa: S108
        access_log="/dev/stdout",
        error_log="stderr",
        user=None,
        in_container=True,
        # Docker's own name server: a container that was replaced has another address.
        resolver="127.0.0.11",
        address_of=lambda process: Address(host=process.server, port=CONTAINER_PORT),
        source=source,
    )


def _throw_away_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate, since nginx reads what its configuration names."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    paths = (folder / "certificate.pem", folder / "key.pem")
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths
