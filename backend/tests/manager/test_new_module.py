"""A written module passes every check unchanged, is found, and serves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trading_api.manager.new_module import NewModule, add_server, write_module
from trading_api.runtime.settings import ConfigurationError

BACKEND = Path(__file__).resolve().parents[2]

SERVE = """
import asyncio, sys
import httpx
from trading_api.app import create_app
from trading_api.runtime.database.migrations import upgrade
from trading_api.runtime.registry import discover, select
from trading_api.runtime.secrets import ensure_secrets
from trading_api.runtime.settings import PlatformSettings, load_settings

async def main(name, path):
    modules = select(discover(), name)
    settings = load_settings(PlatformSettings)
    ensure_secrets(settings.secrets_directory, modules=[name])
    settings.data_directory.mkdir(parents=True)
    app = create_app(modules, settings=settings)
    hosted = app.hosted[name]
    await upgrade(hosted.context.database, hosted.migrations)
    await app.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as c:
        found = [
            (await c.get("/readyz")).status_code,
            (await c.get(f"/api/v1/{name}/health")).json()["module_name"],
            path in (await c.get(f"/api/v1/{name}/openapi.json")).json()["paths"],
            (await c.get(path)).status_code,
        ]
    await app.stop()
    print(*found)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the backend with two modules written into it."""
    made = tmp_path_factory.mktemp("backend")
    shutil.copytree(
        BACKEND / "src",
        made / "src",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(BACKEND / name, made)
    (made / "dev-config.yaml").write_text("servers:\n  gateway:\n    modules: [gateway]\n")
    write_module(NewModule("price-alerts", "alert"), backend=made)
    write_module(NewModule("notes"), backend=made)
    return made


def run(tree: Path, *command: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command] if command[0] != "-c" else [sys.executable, *command],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree / "src"), **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PACKAGES = ("src/trading_api/modules/price_alerts", "src/trading_api/modules/notes")


def test_written_modules_pass_linter_and_formatter(tree: Path) -> None:
    run(tree, "ruff", "check", *PACKAGES)
    run(tree, "ruff", "format", "--check", *PACKAGES)


@pytest.mark.nightly
def test_written_modules_pass_the_type_checker(tree: Path) -> None:
    run(tree, "mypy", *PACKAGES)


def test_written_modules_keep_the_walls(tree: Path) -> None:
    out = run(
        tree, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"
    )
    assert "0 broken" in out


def test_written_modules_keep_the_house_rules(tree: Path) -> None:
    script = str(BACKEND.parent / "scripts" / "house_rules.py")
    code = "import runpy, sys; sys.path[0:0] = []; "
    code += f"m = runpy.run_path({script!r}); from pathlib import Path; "
    code += "found = m['check'](Path('src/trading_api')); print(found); sys.exit(bool(found))"
    run(tree, "-c", code)


@pytest.mark.timeout(300)
def test_written_modules_pass_their_own_tests(tree: Path) -> None:
    out = run(tree, "pytest", "-q", "-p", "no:cacheprovider", *PACKAGES)
    assert " passed" in out
    assert "failed" not in out


@pytest.mark.parametrize(("name", "nouns"), [("price-alerts", "alerts"), ("notes", "items")])
def test_written_module_is_found_and_served(
    tree: Path, tmp_path: Path, name: str, nouns: str
) -> None:
    local = tmp_path / "local"
    (local / "run").mkdir(parents=True)
    path = f"/api/v1/{name}/{nouns}"
    out = run(tree, "-c", SERVE, name, path, TRADING_LOCAL_DIR=str(local), LOG_LEVEL="ERROR")
    assert out.splitlines()[-1].split() == ["200", name, "True", "401"]


def test_config_gets_a_server_for_each(tree: Path) -> None:
    text = (tree / "dev-config.yaml").read_text()
    assert "  price-alerts: {modules: [price-alerts]}\n" in text


def test_add_server_keeps_comments_and_what_follows() -> None:
    text = "a: b\nservers: # who\n    one: # first\n        modules: [one]\n\nnginx:\n    port: 1\n"
    assert add_server(text, "two") == (
        "a: b\nservers: # who\n    one: # first\n        modules: [one]\n"
        "    two: {modules: [two]}\n\nnginx:\n    port: 1\n"
    )


def test_add_server_when_there_are_none_then_says_so() -> None:
    with pytest.raises(ConfigurationError, match="servers"):
        add_server("nginx:\n  port: 1\n", "two")


@pytest.mark.parametrize(
    ("name", "noun"),
    [
        ("Notes", "item"),
        ("no_tes", "item"),
        ("../notes", "item"),
        ("class", "item"),
        ("nginx", "item"),
        ("a" * 25, "item"),
        ("notes", "my item"),
        ("notes", "class"),
        ("wallet", "item"),
    ],
)
def test_names_that_cannot_be_used_are_refused_before_anything_is_written(
    tree: Path, name: str, noun: str
) -> None:
    modules = tree / "src/trading_api/modules"
    before = sorted(each.name for each in modules.iterdir())
    with pytest.raises(ConfigurationError):
        write_module(NewModule(name, noun), backend=tree)
    assert sorted(each.name for each in modules.iterdir()) == before
