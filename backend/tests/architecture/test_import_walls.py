"""Every wall of the house was seen to catch a violation that is planted here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BACKEND = Path(__file__).resolve().parents[2]

PLANTED = {
    "Imports run downwards through the floors of the house": (
        "kernel/clock.py",
        "import trading_api.contracts.envelope",
    ),
    "Modules never import one another": (
        "modules/wallet/errors.py",
        "import trading_api.modules.auth.errors",
    ),
    "The rooms of a module are layers": (
        "modules/wallet/repository/store.py",
        "import trading_api.modules.wallet.service",
    ),
    "Kernel, domain, ports and errors know no framework": (
        "modules/wallet/domain/wallet.py",
        "import sqlalchemy",
    ),
    "Services know no web framework, no SQL and no adapter": (
        "modules/wallet/service/wallets.py",
        "import fastapi",
    ),
    "SQL lives in tables and repository": (
        "modules/wallet/schemas.py",
        "import sqlalchemy",
    ),
    "The manager knows the topology, not the modules' code": (
        "manager/cli.py",
        "import trading_api.modules.wallet.domain",
    ),
    "The test kit is for tests": ("runtime/peers.py", "import trading_api.testkit.clocks"),
}


def lint(tree: Path) -> dict[str, str]:
    """Return each contract's verdict for a copy of the sources."""
    script = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(script), "--no-cache", "--config", str(tree / "pyproject.toml")],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    verdicts = dict(re.findall(r"^(.+?) (KEPT|BROKEN)", done.stdout, flags=re.MULTILINE))
    assert verdicts, done.stdout + done.stderr
    return verdicts


def copy_sources(target: Path) -> Path:
    shutil.copytree(
        BACKEND / "src" / "trading_api",
        target / "src" / "trading_api",
        ignore=lambda _folder, names: [n for n in names if n in ("__pycache__", "data")],
    )
    shutil.copy(BACKEND / "pyproject.toml", target)
    return target


@pytest.fixture(scope="module")
def verdicts_with_violations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    tree = copy_sources(tmp_path_factory.mktemp("planted"))
    for file, statement in PLANTED.values():
        path = tree / "src" / "trading_api" / file
        assert path.exists(), f"{file} has moved; plant the violation elsewhere"
        path.write_text(path.read_text() + f"\n{statement}\n")
    return lint(tree)


def test_sources_keep_every_wall() -> None:
    verdicts = lint(BACKEND)
    assert set(verdicts) == set(PLANTED), "each contract needs a planted violation"
    assert set(verdicts.values()) == {"KEPT"}


@pytest.mark.parametrize("contract", PLANTED)
def test_wall_when_violated_then_breaks(
    contract: str, verdicts_with_violations: dict[str, str]
) -> None:
    assert verdicts_with_violations[contract] == "BROKEN"
