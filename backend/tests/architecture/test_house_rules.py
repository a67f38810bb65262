"""The house's own rules hold, and each was seen to catch a violation."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]

PLANTED = {
    "no_float": ("modules/x/domain.py", "price: float = 0"),
    "commit_in_database_only": ("modules/x/service.py", "def f(t):\n    t.commit()"),
    "services_are_keyword_only": (
        "modules/x/service.py",
        "class XService:\n    async def place(self, order): ...",
    ),
    "modules_have_their_rooms": ("modules/x/__init__.py", "import os"),
    "seams_for_time_and_chance": (
        "modules/x/domain.py",
        "from datetime import datetime\nnow = datetime.now()",
    ),
    "no_bare_tasks": ("modules/x/service.py", "import asyncio\nasyncio.create_task(None)"),
    "no_status_text": ("modules/x/domain.py", "def f(o):\n    return o.status == 'open'"),
    "calls_have_time_limits": ("modules/x/adapters.py", "import httpx\nhttpx.AsyncClient()"),
}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house_rules", ROOT / "scripts/house_rules.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house_rules"] = module
    spec.loader.exec_module(module)
    return module


def test_sources_keep_every_rule() -> None:
    assert load().check(ROOT / "backend/src/trading_api") == []


def test_every_rule_has_a_planted_violation() -> None:
    assert set(load().RULES) == set(PLANTED)


@pytest.mark.parametrize("rule", PLANTED)
def test_rule_when_violated_then_reports_it(rule: str, tmp_path: Path) -> None:
    file, content = PLANTED[rule]
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(content + "\n")
    (tmp_path / "modules/x/module.py").touch()
    (tmp_path / "modules/x/__init__.py").touch()
    found = load().check(tmp_path, rule)
    assert any(f": {rule}: " in each for each in found), found


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-test.txt"])
def test_lock_has_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / "backend" / lock).read_text()
    assert re.search(r"https?://|--(extra-)?index-url|--find-links|file:", text) is None
    names = re.findall(r"^[a-z0-9][^\s=]*==", text, flags=re.MULTILINE)
    assert len(names) > 50
    assert text.count("--hash=sha256:") >= len(names)


def test_lock_of_node_packages_has_hashes_and_no_address() -> None:
    text = (ROOT / "backend/tests/js/package-lock.json").read_text()
    assert re.search(r"https?://|git\+|file:", text) is None
    versions = text.count('"version":')
    assert versions >= 2
    assert text.count('"integrity": "sha512-') == versions
