import dataclasses
import json
from pathlib import Path

import pytest

from trading_api.manager.prepared import find_prepared, save_prepared
from trading_api.manager.surroundings import Surroundings
from trading_api.runtime.topology import LocalPaths, parse_config


@pytest.fixture
def config(config_text):
    return parse_config(config_text, source="x", environ={})


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "package" / "modules").mkdir(parents=True)
    (tmp_path / "package" / "modules" / "tables.py").write_text("one")
    return tmp_path / "package"


@pytest.fixture
def around(tmp_path: Path, manifests) -> Surroundings:
    paths = LocalPaths.under(tmp_path / "local")
    for folder in (paths.run, paths.data, paths.secrets):
        folder.mkdir(parents=True)
    for manifest in manifests:
        if manifest.needs_database:
            (paths.data / f"{manifest.name}.db").touch()
    return Surroundings({"BROKER_FEE": "1", "SHLVL": "1"}, {"ANY": "x"}, paths)


@pytest.fixture
def saved(manifests, config, around, package):
    known = [each.name for each in manifests]
    save_prepared(manifests, known, config, around, package=package)


def test_nothing_is_prepared_at_first(config, around, package):
    assert find_prepared(config, around, package=package) is None


def test_what_was_saved_is_found(saved, manifests, config, around, package):
    found = find_prepared(config, around, package=package)
    assert found is not None
    assert [each.name for each in found.manifests] == list(found.known)
    by_name = {each.name: each for each in found.manifests}
    assert by_name["copy-trading"].url_prefixes == ("/api/v1/subscriptions/",)
    assert [version.name for version in by_name["broker"].versions] == ["v1", "v2"]


def test_a_shells_own_variables_do_not_matter(saved, config, around, package):
    other = dataclasses.replace(around, environ={**around.environ, "SHLVL": "2", "PWD": "/"})
    assert find_prepared(config, other, package=package) is not None


@pytest.mark.parametrize(
    ("environ", "dotenv"),
    [
        ({"BROKER_FEE": "2"}, {"ANY": "x"}),
        ({"BROKER_FEE": "1", "ENABLED_MODULES": "broker"}, {"ANY": "x"}),
        ({"BROKER_FEE": "1"}, {"ANY": "y"}),
        ({"BROKER_FEE": "1", "WALLET_DATABASE_URL": "postgresql+asyncpg://h/d"}, {"ANY": "x"}),
    ],
)
def test_another_setting_prepares_again(saved, config, around, package, environ, dotenv):
    other = dataclasses.replace(around, environ=environ, dotenv=dotenv)
    assert find_prepared(config, other, package=package) is None


def test_another_config_source_key_or_database_prepares_again(
    saved, config_text, config, around, package
):
    text = config_text.replace("WALLET_LIMIT: 5", "WALLET_LIMIT: 6")
    other = parse_config(text, source="x", environ={})
    assert find_prepared(other, around, package=package) is None
    assert find_prepared(config, around, package=package) is not None
    key = around.paths.secrets / "key"
    key.touch()
    assert find_prepared(config, around, package=package) is None
    key.unlink()
    assert find_prepared(config, around, package=package) is not None
    (around.paths.data / "broker.db").rename(around.paths.data / "kept.db")
    assert find_prepared(config, around, package=package) is None
    (around.paths.data / "broker.db").touch()
    assert find_prepared(config, around, package=package) is None
    (around.paths.data / "kept.db").rename(around.paths.data / "broker.db")
    assert find_prepared(config, around, package=package) is not None
    (package / "modules" / "tables.py").write_text("other")
    assert find_prepared(config, around, package=package) is None


def test_databases_elsewhere_are_never_relied_on(manifests, config, around, package):
    environ = {"DATABASE_URL": "postgresql+asyncpg://h/d"}
    other = dataclasses.replace(around, environ=environ)
    save_prepared(manifests, [], config, other, package=package)
    assert find_prepared(config, other, package=package) is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"fingerprint": 5}'])
def test_garbage_prepares_again(config, around, package, content):
    (around.paths.run / "prepared.json").write_text(content)
    assert find_prepared(config, around, package=package) is None


def test_no_value_of_a_setting_is_kept(saved, around):
    text = (around.paths.run / "prepared.json").read_text()
    assert set(json.loads(text)) == {"fingerprint", "databases", "manifests", "known"}
