"""The platform's routes: root, health, versions, registry, documents, pages, assets."""

import re
from dataclasses import replace

import httpx
import pytest

from trading_api.modules.gateway.api.pages import find_asset, names_html
from trading_api.modules.gateway.domain import Probe
from trading_api.modules.gateway.tests.conftest import AskingAs, FakeBusState, FakeModules
from trading_api.testkit.clocks import FixedClock

SILENT = Probe("wallet", silence="the module wallet does not answer")
REASON = "disk full at /var/lib"


@pytest.mark.parametrize("accept", ["*/*", "application/json", "", "text/html;q=0, */*"])
async def test_root_when_html_is_not_named_then_json(
    anybody: httpx.AsyncClient, accept: str
) -> None:
    answer = await anybody.get("/", headers={"Accept": accept})
    body = answer.json()
    assert (body["name"], body["api_version"]) == ("Trading API", "v1")
    assert body["modules"] == ["broker", "wallet"]
    assert body["links"]["docs"] == "/api/v1/docs"
    assert answer.headers["vary"] == "Accept"


async def test_root_when_a_browser_asks_then_a_page_that_runs_only_its_own_script(
    anybody: httpx.AsyncClient,
) -> None:
    answer = await anybody.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy
    assert "broker" in answer.text
    assert re.search(r"(src|href)=\"(https?:)?//", answer.text) is None
    assert "%TITLE%" not in answer.text


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/html", True),
        ("TEXT/HTML; q=0.5", True),
        ("text/*", False),
        ("text/html;q=0.0", False),
    ],
)
def test_names_html_reads_the_header(accept: str, expected: bool) -> None:
    assert names_html(accept) is expected


@pytest.mark.parametrize("path", ["/health", "/api/v1/health", "/api/v1/health/"])
async def test_health_when_all_is_well_then_200(anybody: httpx.AsyncClient, path: str) -> None:
    answer = await anybody.get(path)
    body = answer.json()
    assert (answer.status_code, body["status"], body["bus"]) == (200, "healthy", "up")
    assert body["databases"] == {"broker": "up", "wallet": "up"}
    assert body["modules"]["broker"] == {
        "status": "healthy",
        "instances": 1,
        "version": "1.0.0",
        "latency_ms": 1.5,
        "checks": {"database": "ok", "bus": "ok"},
    }
    assert body["issues"] == []


async def test_health_when_the_bus_is_down_then_degraded_with_200(
    anybody: httpx.AsyncClient, bus_state: FakeBusState
) -> None:
    bus_state.is_up = False
    answer = await anybody.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["bus"] == "down"


async def test_health_when_a_module_is_silent_then_503(
    anybody: httpx.AsyncClient, modules: FakeModules
) -> None:
    modules.probes["wallet"] = SILENT
    answer = await anybody.get("/health")
    body = answer.json()
    assert (answer.status_code, body["status"]) == (503, "unhealthy")
    assert body["modules"]["wallet"]["status"] == "unhealthy"
    assert body["modules"]["wallet"]["latency_ms"] is None
    assert body["modules"]["broker"]["status"] == "healthy"
    assert body["issues"] == ["wallet: the module wallet does not answer"]


@pytest.mark.parametrize(("roles", "sees_reasons"), [(("operator",), True), ((), False)])
async def test_health_in_production_tells_reasons_to_operators_alone(
    asking_as: AskingAs, modules: FakeModules, roles: tuple[str, ...], sees_reasons: bool
) -> None:
    modules.probes["broker"] = replace(
        modules.probes["broker"], checks={"database": REASON}, failures=frozenset({"database"})
    )
    client = asking_as("usr_alice", roles=roles, is_production=True)
    answer = await client.get("/health")
    assert answer.json()["status"] == "unhealthy"
    assert (REASON in answer.text) is sees_reasons


async def test_health_when_many_ask_then_modules_are_asked_once(
    anybody: httpx.AsyncClient, modules: FakeModules, clock: FixedClock
) -> None:
    for _ in range(5):
        await anybody.get("/health")
    assert modules.asked == 2
    clock.advance(1)
    await anybody.get("/health")
    assert modules.asked == 4


async def test_versions_name_the_stable_and_the_planned_one(anybody: httpx.AsyncClient) -> None:
    body = (await anybody.get("/api/v1/versions")).json()
    assert body["current_version"] == "v1"
    v1, v2 = body["available_versions"]
    assert (v1["version"], v1["status"], v1["breaking_changes"]) == ("v1", "stable", [])
    assert (v2["version"], v2["status"], v2["release_date"]) == ("v2", "planned", None)
    assert v2["breaking_changes"]
    assert v2["links"] == {}
    assert (await anybody.get("/api/v1/version")).json() == v1


async def test_modules_list_processes_to_users_alone(asking_as: AskingAs) -> None:
    assert (await asking_as().get("/api/v1/modules")).status_code == 401
    found = (await asking_as("usr_alice").get("/api/v1/modules")).json()
    assert [each["module"] for each in found] == ["gateway"]
    assert found[0]["versions"] == ["v1"]
    instance = found[0]["instances"][0]
    assert (instance["process"], instance["state"]) == ("gateway_0", "ready")
    assert instance["last_heartbeat"] == "2026-03-02T14:30:00Z"


@pytest.mark.parametrize("path", ["/openapi.json", "/api/v1/openapi.json"])
async def test_openapi_when_a_module_is_away_then_it_is_named(
    anybody: httpx.AsyncClient, modules: FakeModules, path: str
) -> None:
    modules.documents["broker", "openapi"] = {
        "info": {"summary": "orders"},
        "paths": {"/api/v1/broker/orders": {"get": {}}},
    }
    body = (await anybody.get(path)).json()
    assert list(body["paths"]) == ["/api/v1/broker/orders"]
    assert body["x-missing-modules"] == ["wallet"]


@pytest.mark.parametrize(
    "path",
    ["/docs", "/redoc", "/openapi.json", "/asyncapi.json", "/api/v1/docs", "/api/v1/redoc",
     "/api/v1/openapi.json", "/api/v1/ws/asyncapi", "/api/v1/ws/asyncapi.json"],
)  # fmt: skip
async def test_documents_in_production_need_an_operator(asking_as: AskingAs, path: str) -> None:
    assert (await asking_as().get(path)).status_code == 200
    assert (await asking_as(is_production=True).get(path)).status_code == 401
    user = asking_as("usr_alice", is_production=True)
    assert (await user.get(path)).status_code == 403
    operator = asking_as("usr_alice", roles=("operator",), is_production=True)
    assert (await operator.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_pages_load_only_assets_that_are_served_here(
    anybody: httpx.AsyncClient, path: str
) -> None:
    page = await anybody.get(path)
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assets = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    loaded = [each for each in assets if not each.startswith("data:")]
    assert loaded
    for each in loaded:
        assert each.startswith("/docs/assets/"), each
        answer = await anybody.get(each)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-type"].split(";")[0] in ("text/javascript", "text/css")


async def test_asyncapi_page_shows_what_a_document_says_as_text(
    anybody: httpx.AsyncClient, modules: FakeModules
) -> None:
    modules.documents["broker", "asyncapi"] = {
        "channels": {
            "socket": {
                "address": "/api/v1/broker/ws",
                "title": "<script>alert(1)</script>",
                "messages": {"orders.update": {"$ref": "#/components/messages/orders.update"}},
            }
        },
        "operations": {
            "orders.update": {
                "action": "send",
                "channel": {"$ref": "#/channels/socket"},
                "messages": [{"$ref": "#/channels/socket/messages/orders.update"}],
            }
        },
        "components": {"messages": {"orders.update": {"name": "orders.update", "payload": {}}}},
    }
    page = await anybody.get("/api/v1/ws/asyncapi")
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "the server sends <code>orders.update</code>" in page.text


@pytest.mark.parametrize("name", ["../pages.py", "redoc.standalone.js/", "x.js", "", "favicon.png"])
def test_find_asset_when_the_name_is_not_exact_then_none(name: str) -> None:
    assert find_asset(name) is None
