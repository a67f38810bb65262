"""Nobody reaches another's things: every operation of every module, asked for other's ids."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from tests.journeys.conftest import ON_ONE, ClientConnection, Person, sign_up
from tests.journeys.operations import ID, MODULES, Operation, ids_in, read_operations

from trading_api.testkit.fleet import Fleet

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("fleet")]


async def furnish(person: Person) -> None:
    """Give somebody one of everything that has an id."""
    client = person.client
    for path, body in (
        ("auth/api-keys", {"name": "bot", "scopes": ["broker:read"]}),
        ("auth/share-tokens", {"name": "guest", "account_id": "acc_1"}),
        ("broker/accounts", {"name": "second"}),
        ("broker/orders", {"symbol": "DEMO:AAPL", "side": 1, "type": 2, "qty": 1}),
    ):
        answer = await client.post(f"/api/v1/{path}", json=body)
        assert answer.status_code in (200, 201), f"{path}: {answer.text}"
    resting = {"symbol": "DEMO:AAPL", "side": 1, "type": 1, "qty": 1, "limitPrice": 1}
    far = await client.post("/api/v1/broker/orders", json=resting)
    resting["limitPrice"] = int(float(far.json()["context"]["lowest"])) + 1
    answer = await client.post("/api/v1/broker/orders", json=resting)
    assert answer.status_code == 200, answer.text


async def look(client: httpx.AsyncClient, operations: list[Operation]) -> dict[str, Any]:
    """Return the answers of all that can be read without naming anything."""
    found = {}
    for each in operations:
        is_plain = not (each.is_public or each.is_endless or "{" in each.path)
        if each.method == "get" and is_plain:
            answer = await client.get(each.path)
            if answer.status_code == 200 and "json" in answer.headers.get("content-type", ""):
                found[each.path] = answer.json()
    return found


def plain(answer: httpx.Response, identifier: str) -> str:
    """Return an answer without what differs between any two requests."""
    text = answer.text.replace(identifier, "ID")
    try:
        body = json.loads(text)
    except ValueError:
        return text
    if isinstance(body, dict):
        body.pop("request_id", None)
    return json.dumps(body, sort_keys=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fleet", ON_ONE, indirect=True)
async def test_operation_when_it_names_another_s_thing_then_as_if_it_did_not_exist(
    fleet: Fleet, person: Person
) -> None:
    operations = await read_operations(person.client)
    await furnish(person)
    before = await look(person.client, operations)
    async with sign_up(fleet) as stranger, fleet.client() as nobody:
        await furnish(stranger)
        own = ids_in(await look(stranger.client, operations))
        others = sorted(ids_in(before) - own)
        by_kind = {each.partition("_")[0]: each for each in others}
        assert {"acc", "ord", "key", "shr", "ses", "usr"} <= by_kind.keys(), by_kind
        theirs = list(by_kind.values())
        asked = 0
        for operation in operations:
            if operation.is_public or operation.is_endless:
                continue
            for name in operation.identifiers:
                for identifier in theirs:
                    asked += 1
                    method, path, options = operation.request(identifier, named=name)
                    answer = await stranger.client.request(method, path, **options)
                    where = f"{method} {path} {name} {identifier}: {answer.text[:300]}"
                    # A filter may find nothing; a change must not be made.
                    assert not answer.is_success or method == "GET", where
                    assert not answer.is_success or not set(ID.findall(answer.text)) & set(
                        others
                    ), where
                    kind, _, rest = identifier.partition("_")
                    unknown = f"{kind}_{'0' * len(rest)}"
                    method, path, options = operation.request(unknown, named=name)
                    as_unknown = await stranger.client.request(method, path, **options)
                    assert answer.status_code == as_unknown.status_code, where
                    assert plain(answer, identifier) == plain(as_unknown, unknown), where
                method, path, options = operation.request(theirs[0], named=name)
                answer = await nobody.request(method, path, **options)
                assert answer.status_code == 401, f"{method} {path}: {answer.text[:300]}"
        assert asked > 100
    after = await look(person.client, operations)
    for path in ("/api/v1/auth/api-keys", "/api/v1/auth/share-tokens", "/api/v1/broker/orders"):
        assert [each["id"] for each in after[path]] == [each["id"] for each in before[path]]


async def test_topic_when_it_names_another_s_account_then_as_if_it_did_not_exist(
    fleet: Fleet, person: Person
) -> None:
    account = (await person.get("/api/v1/broker/accounts"))[0]["id"]
    asked = 0
    async with sign_up(fleet) as stranger:
        for module in MODULES:
            document = await stranger.client.get(f"/api/v1/{module}/ws/asyncapi.json")
            if document.status_code != 200:
                continue
            routes = sorted(
                text.removesuffix(".subscribe")
                for text in strings_in(document.json())
                if text.endswith(".subscribe")
            )
            for route in routes:
                # A socket each: they take few messages a second.
                async with stranger.connect(f"/api/v1/{module}/ws") as socket:
                    answers = []
                    for named in (account, "acc_" + "0" * (len(account) - 4)):
                        frame = await subscribe(socket, route, named)
                        if frame["type"] == "error":
                            # A name that the document only speaks of.
                            assert frame["payload"]["code"].endswith("operation_unknown")
                            break
                        assert frame["payload"]["status"] == "error", frame
                        frame["payload"]["error"].pop("request_id")
                        answers.append(frame["payload"])
                        asked += 1
                    assert not answers or answers[0] == answers[1]
    assert asked >= 8


async def subscribe(socket: ClientConnection, route: str, account: str) -> dict[str, Any]:
    payload = {"accountId": account}
    await socket.send(json.dumps({"type": f"{route}.subscribe", "payload": payload}))
    async with asyncio.timeout(5):
        while True:
            frame: dict[str, Any] = json.loads(await socket.recv())
            if frame["type"] in (f"{route}.subscribe.response", "error"):
                return frame


def strings_in(document: Any) -> set[str]:
    if isinstance(document, dict):
        return set().union(*map(strings_in, document.values())) if document else set()
    if isinstance(document, list):
        return set().union(*map(strings_in, document)) if document else set()
    return {document} if isinstance(document, str) else set()
