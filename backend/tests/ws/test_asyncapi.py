"""The document's structure, by the rules of the AsyncAPI specification 3.0.0."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from tests.ws.conftest import World

from trading_api.runtime.ws.asyncapi import asyncapi_of

Json = dict[str, Any]

_KEY = re.compile(r"[A-Za-z0-9._-]+")


@pytest.fixture
def document(world: World) -> Json:
    return asyncapi_of("test", "v1", list(world.endpoint.channels.values()))


def mistakes_in(document: Json) -> list[str]:
    """Return what breaks the specification."""
    found = [f"missing {name}" for name in ("asyncapi", "info", "channels") if name not in document]
    if document.get("asyncapi") != "3.0.0":
        found.append("another version")
    found += [f"info.{name}" for name in ("title", "version") if name not in document["info"]]
    found += [f"unresolved {ref}" for ref in _references(document) if _find(document, ref) is None]
    for name, server in document["servers"].items():
        found += [f"servers.{name}.{each}" for each in ("host", "protocol") if each not in server]
    for kind, parts in document["components"].items():
        found += [f"key {kind}.{name}" for name in parts if not _KEY.fullmatch(name)]
    for name, channel in document["channels"].items():
        if not channel.get("address") or not channel.get("messages"):
            found.append(f"channels.{name}")
    for name, operation in document["operations"].items():
        if operation.get("action") not in ("send", "receive"):
            found.append(f"operations.{name}.action")
        place = operation["channel"]["$ref"]
        for part in (operation, operation.get("reply", operation)):
            for message in part["messages"]:
                if not message["$ref"].startswith(f"{place}/messages/"):
                    found.append(f"operations.{name} names a message of no channel of its own")
    for name, message in document["components"]["messages"].items():
        try:
            jsonschema.Draft202012Validator.check_schema(message["payload"])
        except jsonschema.SchemaError as error:
            found.append(f"messages.{name}: {error.message}")
    return found


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def _find(document: Json, reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def test_document_when_made_then_it_keeps_the_specification(document: Json) -> None:
    assert mistakes_in(document) == []
    assert document["channels"]["socket"]["address"] == "/api/v1/test/ws"


@pytest.mark.parametrize(
    "path",
    [
        ("asyncapi",),
        ("info", "title"),
        ("components", "schemas", "Tick"),
        ("components", "messages", "ticks.update"),
        ("channels", "socket", "messages", "pong"),
        ("operations", "ticks.update", "action"),
        ("servers", "platform", "host"),
    ],
)
def test_document_when_a_part_is_missing_then_the_check_finds_it(
    document: Json, path: tuple[str, ...]
) -> None:
    *parents, last = path
    found = document
    for name in parents:
        found = found[name]
    del found[last]
    assert mistakes_in(document)


def test_document_when_channels_are_declared_then_every_operation_is_there(
    document: Json,
) -> None:
    operations = document["operations"]
    for route in ("ticks", "public-ticks", "orders", "fills"):
        assert operations[f"{route}.subscribe"]["action"] == "receive"
        assert operations[f"{route}.unsubscribe"]["action"] == "receive"
        assert operations[f"{route}.update"]["action"] == "send"
    assert operations["orders.subscribe"]["x-access"] == "scope test:read"
    assert operations["public-ticks.subscribe"]["x-access"] == "public"
    assert {"ping", "auth", "auth.refresh", "auth.expired", "error"} <= operations.keys()


def test_document_when_a_client_resumes_then_recover_is_described(document: Json) -> None:
    payload = document["components"]["messages"]["orders.subscribe"]["payload"]
    schema = {**payload, "components": document["components"]}
    check = jsonschema.Draft202012Validator(schema)
    good = {"accountId": "acc_1", "recover": {"epoch": "e", "offset": 1}}
    check.validate({"type": "orders.subscribe", "payload": good, "id": 1})
    with pytest.raises(jsonschema.ValidationError):
        check.validate({"type": "orders.subscribe", "payload": {**good, "other": 1}})
