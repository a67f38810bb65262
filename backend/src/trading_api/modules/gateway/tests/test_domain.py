"""How single answers become one judgement, and many documents one."""

import pytest

from trading_api.modules.gateway.domain import (
    HealthStatus,
    PlatformHealth,
    Probe,
    assess_platform,
    merge_asyncapi,
    merge_openapi,
)

WELL = Probe("broker", version="1", latency_us=2000, checks={"database": "ok", "bus": "ok"})
SILENT = Probe("wallet", silence="no answer within 1 s")
WITHOUT_BUS = Probe("auth", version="1", checks={"database": "ok", "bus": "does not answer"})
WITHOUT_DATABASE = Probe(
    "broker", version="1", checks={"database": "locked"}, failures=frozenset({"database"})
)


def assess(*probes: Probe, is_bus_up: bool = True) -> PlatformHealth:
    return assess_platform(
        probes, instances={"broker": 2}, is_bus_up=is_bus_up, version="1", uptime_seconds=5
    )


@pytest.mark.parametrize(
    ("probes", "is_bus_up", "expected"),
    [
        ([WELL], True, HealthStatus.HEALTHY),
        ([WELL], False, HealthStatus.DEGRADED),
        ([WELL, WITHOUT_BUS], True, HealthStatus.DEGRADED),
        ([WELL, SILENT], True, HealthStatus.UNHEALTHY),
        ([WITHOUT_DATABASE, WITHOUT_BUS], True, HealthStatus.UNHEALTHY),
    ],
)
def test_platform_is_as_bad_as_its_worst_module(
    probes: list[Probe], is_bus_up: bool, expected: HealthStatus
) -> None:
    assert assess(*probes, is_bus_up=is_bus_up).status is expected


def test_modules_are_named_with_instances_databases_and_issues() -> None:
    health = assess(WITHOUT_DATABASE, SILENT, WITHOUT_BUS)
    assert {name: each.instances for name, each in health.modules.items()} == {
        "auth": 1,
        "broker": 2,
        "wallet": 0,
    }
    assert health.databases == {"auth": "up", "broker": "down"}
    assert health.issues == (
        "auth: bus: does not answer",
        "broker: database: locked",
        "wallet: no answer within 1 s",
    )


def _openapi(path: str) -> dict[str, object]:
    reference = {"$ref": "#/components/schemas/OrderView"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "x", "summary": f"of {path}"},
        "paths": {path: {"get": {"responses": {"200": {"schema": reference}}}}},
        "components": {
            "schemas": {"OrderView": {"title": path, "properties": {"parent": reference}}},
            "securitySchemes": {"bearer": {"type": "http"}},
        },
    }


def test_merge_openapi_when_names_clash_then_each_module_keeps_its_own() -> None:
    merged = merge_openapi(
        {"broker": _openapi("/b"), "copy-desk": _openapi("/c")},
        title="t",
        version="1",
        summary="s",
    )
    schemas = merged["components"]["schemas"]
    assert {name: each["title"] for name, each in schemas.items()} == {
        "broker_OrderView": "/b",
        "copy-desk_OrderView": "/c",
    }
    parent = schemas["copy-desk_OrderView"]["properties"]["parent"]
    assert parent == {"$ref": "#/components/schemas/copy-desk_OrderView"}
    answer = merged["paths"]["/b"]["get"]["responses"]["200"]["schema"]
    assert answer == {"$ref": "#/components/schemas/broker_OrderView"}
    assert merged["components"]["securitySchemes"] == {"bearer": {"type": "http"}}
    assert [each["name"] for each in merged["tags"]] == ["broker", "copy-desk"]


def test_merge_asyncapi_when_channels_share_a_name_then_references_follow() -> None:
    document = {
        "asyncapi": "3.0.0",
        "channels": {"orders": {"messages": {"update": {"$ref": "#/components/messages/update"}}}},
        "operations": {
            "sendOrders": {
                "action": "send",
                "channel": {"$ref": "#/channels/orders"},
                "messages": [{"$ref": "#/channels/orders/messages/update"}],
            }
        },
        "components": {"messages": {"update": {"name": "orders.update"}}},
    }
    merged = merge_asyncapi(
        {"broker": document, "wallet": document}, title="t", version="1", description="d"
    )
    assert set(merged["channels"]) == {"broker_orders", "wallet_orders"}
    operation = merged["operations"]["wallet_sendOrders"]
    assert operation["channel"] == {"$ref": "#/channels/wallet_orders"}
    assert operation["messages"] == [{"$ref": "#/channels/wallet_orders/messages/update"}]
    update = merged["channels"]["broker_orders"]["messages"]["update"]
    assert update == {"$ref": "#/components/messages/broker_update"}


def test_merge_when_nothing_answers_then_the_document_is_still_whole() -> None:
    merged = merge_openapi({}, title="t", version="1", summary="s")
    assert merged["paths"] == {}
