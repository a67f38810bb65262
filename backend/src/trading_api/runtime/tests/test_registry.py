"""Modules are found, or the start stops with a line that says which and why."""

import sys
from pathlib import Path

import pytest

from trading_api.runtime import registry
from trading_api.runtime.registry import RegistryError, discover, load, select

MODULE = """
from trading_api.runtime.module import Manifest, Module, ModuleContext, ModuleParts

class {name}Module(Module):
    manifest = Manifest(name="{module}", summary="made by a test")

    def build(self, context: ModuleContext) -> ModuleParts:
        return ModuleParts()
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes a package of modules, by folder name and source."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"planted_{tmp_path.name.replace('-', '_')}"

    def make(**modules: str) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        for folder, source in modules.items():
            (tmp_path / name / folder).mkdir()
            (tmp_path / name / folder / "__init__.py").touch()
            (tmp_path / name / folder / "module.py").write_text(source)
        return name

    yield make
    for each in [each for each in sys.modules if each.startswith(name)]:
        del sys.modules[each]


def a_module(module: str) -> str:
    return MODULE.format(name=module.capitalize().replace("-", ""), module=module)


def test_discover_when_sound_then_names_every_module(package):
    found = discover(package=package(one=a_module("one"), two=a_module("two-kebab")), group="none")
    assert list(found) == ["one", "two-kebab"]


def test_discover_when_broken_and_duplicate_then_lists_all_mistakes(package):
    made = package(
        good=a_module("good"), same=a_module("good"), broken="import no_such_thing", empty="",
        exits="raise SystemExit(0)", bare=a_module("bare").replace("manifest =", "other ="),
    )  # fmt: skip
    with pytest.raises(RegistryError) as raised:
        discover(package=made, group="none")
    assert len(raised.value.mistakes) == 5
    text = str(raised.value)
    assert "module broken can't be imported: ModuleNotFoundError" in text
    assert "module empty can't be imported" in text
    assert "module exits can't be imported: SystemExit: 0" in text
    assert "bare.module has no manifest" in text
    assert "has the name 'good'" in text


@pytest.mark.parametrize(
    ("names", "mistake"),
    [("nope", "there is no module 'nope'; known are one, two"), ("one,one", "twice"), (" ,", "no")],
)
def test_select_when_wrong_then_says_what_is_known(package, names: str, mistake: str):
    known = discover(package=package(one=a_module("one"), two=a_module("two")), group="none")
    with pytest.raises(RegistryError, match=mistake):
        select(known, names)
    assert list(select(known, "two, one")) == ["two", "one"]
    assert list(select(known, "all")) == ["one", "two"]


def test_load_when_one_is_named_then_imports_no_other(package, monkeypatch: pytest.MonkeyPatch):
    made = package(one=a_module("one"), broken="raise RuntimeError('must not be imported')")
    monkeypatch.setattr(registry, "BUILT_IN_PACKAGE", made)
    assert list(load("one")) == ["one"]
    with pytest.raises(RegistryError, match="module broken can't be imported: RuntimeError"):
        load("broken")


def test_built_in_modules_are_found():
    assert {"auth", "broker", "datafeed", "gateway", "wallet"} <= set(discover())
