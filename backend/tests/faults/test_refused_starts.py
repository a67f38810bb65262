"""A start that can't come to anything is refused with one message, and changes nothing."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.faults.conftest import Stage

from trading_api.testkit.fleet import BACKEND, Fleet, free_port

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("fleet")]

CONFIGURATION, FAILED = 78, 1

GOOD = (BACKEND / "dev-config.yaml").read_text()


GUEST = """
from trading_api.runtime.module import Command, Manifest, Module, ModuleParts

class Guest(Module):
    {manifest}

    def build(self, context):
        return ModuleParts(commands=[Command("seed", "load what a guest needs", self.seed)])

    async def seed(self, arguments):
        {run}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="tapi-") as name:
        yield Path(name)


def a_fleet(folder: Path, text: str = GOOD, **environ: str) -> Fleet:
    """A fleet that has never run, with this config."""
    config = folder / "fleet.yaml"
    config.write_text(text)
    return Fleet(folder / "local", free_port(), {"TRADING_CONFIG": str(config), **environ})


def add_third_party(folder: Path, source: str, *, name: str = "guest") -> dict[str, str]:
    """Install a package that brings a module; return the environment in which it is found."""
    (folder / f"{name}_package.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[trading_api.modules]\n{name} = {name}_package:Guest\n"
    )
    return {"PYTHONPATH": os.pathsep.join((str(BACKEND / "src"), str(folder)))}


def ensure_refused(fleet: Fleet, code: int, *said: str) -> None:
    done = fleet.manage("start")
    assert done.returncode == code, done.stderr
    for each in said:
        assert each in done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    assert Stage(fleet).family() == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(fleet.url, trust_env=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("servers: {broker: [", ("fleet.yaml", "line 1"), id="unclosed"),
        pytest.param("a: \0\n", ("fleet.yaml",), id="binary"),
        pytest.param(
            GOOD.replace("modules: [broker]", "modules: [broker, brokr]"),
            ("brokr", "known"),
            id="unknown module",
        ),
    ],
)
def test_start_when_config_is_broken_then_is_refused(
    folder: Path, text: str, said: tuple[str, ...]
):
    ensure_refused(a_fleet(folder, text), CONFIGURATION, *said)


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        pytest.param(
            "import sys\nsys.exit(0)\n",
            CONFIGURATION,
            "guest (guest_package:Guest) can't be imported: SystemExit",
            id="exits",
        ),
        pytest.param(
            GUEST.format(manifest="pass", run="return 0"),
            CONFIGURATION,
            "TypeError: guest_package:Guest has no manifest",
            id="without manifest",
        ),
        pytest.param(
            GUEST.format(
                manifest='manifest = Manifest(name="guest", summary="", needs_database=False)',
                run="raise OSError('no licence')",
            ),
            FAILED,
            "the module 'guest' failed at 'seed': OSError: no licence",
            id="seed fails",
        ),
    ],
)
def test_start_when_third_party_module_is_broken_then_is_refused(
    folder: Path, source: str, code: int, said: str
):
    environ = add_third_party(folder, source)
    config = GOOD.replace("modules: [wallet]", "modules: [wallet, guest]")
    ensure_refused(a_fleet(folder, config, **environ), code, said)


def test_start_when_third_party_module_takes_a_name_then_is_refused(folder: Path):
    source = "from trading_api.modules.wallet.module import WalletModule as Guest\n"
    environ = add_third_party(folder, source)
    ensure_refused(a_fleet(folder, **environ), CONFIGURATION, "wallet", "guest_package")


def test_restart_when_config_is_broken_then_running_fleet_is_left_alone(stage: Stage, folder: Path):
    before = stage.all()
    broken = folder / "broken.yaml"
    broken.write_text("servers: {broker: [")
    done = stage.fleet.manage("restart", "--config", str(broken))
    assert done.returncode == CONFIGURATION, done.stderr
    assert "broken.yaml" in done.stderr
    assert stage.all() == before
    assert httpx.get(f"{stage.fleet.url}/health", timeout=10, trust_env=False).status_code == 200
