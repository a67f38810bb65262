"""Chart storage: forms in, the user's own things out, limits, nobody else's."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from trading_api.kernel.ids import UuidV7Ids
from trading_api.modules.datafeed.api.layouts import PREFIX, build_layouts_router
from trading_api.modules.datafeed.domain import layout
from trading_api.modules.datafeed.errors import ChartStorageFullError
from trading_api.modules.datafeed.repository.layouts import LayoutRepository
from trading_api.modules.datafeed.service.layouts import LayoutService
from trading_api.modules.datafeed.tests.conftest import NOW
from trading_api.runtime.database import Database
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.http import access_token, client_of

ClientOf = Callable[..., httpx.AsyncClient]
ADA = {"client": "web", "user": "whoever"}
CHART = {"name": "mine", "symbol": "DEMO:AAPL", "resolution": "1D", "content": '{"panes": []}'}


@pytest.fixture
def layouts(empty_database: Database) -> LayoutService:
    return LayoutService(database=empty_database, repository=LayoutRepository(), ids=UuidV7Ids())


@pytest.fixture
async def make_client(
    layouts: LayoutService, settings: PlatformSettings, clock: FixedClock
) -> AsyncIterator[ClientOf]:
    router = build_layouts_router(layouts=layouts, clock=clock)
    clients: list[httpx.AsyncClient] = []

    def make(user_id: str | None = "usr_ada") -> httpx.AsyncClient:
        token = user_id and access_token(
            settings, clock, user_id=user_id, scopes=("datafeed:read",)
        )
        clients.append(
            client_of(router, prefix=PREFIX, settings=settings, clock=clock, token=token)
        )
        return clients[-1]

    yield make
    for each in clients:
        await each.aclose()


async def get(http: httpx.AsyncClient, path: str, **params: Any) -> Any:
    answer = await http.get(path, params={**ADA, **params})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["status"] == "ok"
    return body["data"]


async def test_chart_is_saved_listed_loaded_overwritten_removed(
    make_client: ClientOf, clock: FixedClock
) -> None:
    client = make_client()
    assert await get(client, "/charts") == []
    # As charts send it: a multipart form.
    files = {name: (None, value) for name, value in CHART.items()}
    saved = (await client.post("/charts", params=ADA, files=files)).json()
    assert saved["status"] == "ok"
    chart, began = saved["id"], int(clock.now().timestamp())
    assert await get(client, "/charts") == [
        {
            "id": chart,
            "name": "mine",
            "timestamp": began,
            "symbol": "DEMO:AAPL",
            "resolution": "1D",
        }
    ]
    loaded = await get(client, "/charts", chart=chart)
    assert loaded == {
        "id": chart,
        "name": "mine",
        "timestamp": began,
        "content": CHART["content"],
    }
    clock.advance(60)
    again = await client.post(
        "/charts", params={**ADA, "chart": chart}, data={**CHART, "name": "ours", "extra": "1"}
    )
    assert again.json() == {"status": "ok"}
    (listed,) = await get(client, "/charts")
    assert (listed["name"], listed["timestamp"]) == ("ours", began + 60)
    removed = await client.delete("/charts", params={**ADA, "chart": chart})
    assert removed.json() == {"status": "ok"}
    assert await get(client, "/charts") == []
    missing = await client.delete("/charts", params={**ADA, "chart": chart})
    assert missing.status_code == 404
    assert missing.json()["status"] == "error"


async def test_owner_is_who_signed_in_whatever_the_query_says(make_client: ClientOf) -> None:
    ada, eve, nobody = make_client(), make_client("usr_eve"), make_client(None)
    chart = (await ada.post("/charts", params=ADA, data=CHART)).json()["id"]
    await ada.post("/study_templates", params=ADA, data={"name": "t", "content": "c"})
    claim = {"client": "web", "user": "usr_ada"}
    assert (await eve.get("/charts", params=claim)).json() == {"status": "ok", "data": []}
    for method, params in (("GET", {"chart": chart}), ("DELETE", {"chart": chart})):
        answer = await eve.request(method, "/charts", params={**claim, **params})
        assert answer.status_code == 404
    stolen = await eve.post("/charts", params={**claim, "chart": chart}, data=CHART)
    assert stolen.status_code == 404
    other = await eve.get("/study_templates", params={**claim, "template": "t"})
    assert other.status_code == 404
    assert (await get(ada, "/charts", chart=chart))["content"] == CHART["content"]
    assert await get(ada, "/charts", client="another front end") == []
    refused = await nobody.get("/charts", params=ADA)
    assert refused.status_code == 401
    assert refused.json()["status"] == "error"


async def test_templates_are_kept_by_kind_tool_and_name(make_client: ClientOf) -> None:
    client = make_client()
    for content in ("one", "two"):
        done = await client.post(
            "/study_templates", params=ADA, data={"name": "averages", "content": content}
        )
        assert done.json() == {"status": "ok"}
    assert await get(client, "/study_templates") == [{"name": "averages"}]
    assert await get(client, "/study_templates", template="averages") == {
        "name": "averages",
        "content": "two",
    }
    line = {**ADA, "tool": "LineToolTrendLine", "name": "thick"}
    await client.post("/drawing_templates", params=line, data={"content": "line"})
    await client.post(
        "/drawing_templates", params={**line, "tool": "LineToolRay"}, data={"content": "ray"}
    )
    assert await get(client, "/drawing_templates", tool="LineToolTrendLine") == ["thick"]
    found = await get(client, "/drawing_templates", tool="LineToolRay", name="thick")
    assert found == {"name": "thick", "content": "ray"}
    assert (await client.delete("/drawing_templates", params=line)).json() == {"status": "ok"}
    assert (await client.delete("/drawing_templates", params=line)).status_code == 404
    assert await get(client, "/drawing_templates", tool="LineToolTrendLine") == []
    done = await client.delete("/study_templates", params={**ADA, "template": "averages"})
    assert done.json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"name": "x"}, 422),
        ({"content": "x"}, 422),
        ({"name": "n" * 300, "content": "x"}, 422),
        ({"name": "n", "content": "x" * (layout.CONTENT_BYTES_MAX + 1)}, 422),
        ({"name": "n", "content": "x\x00y"}, 422),
        ({"name": ["a", "b"], "content": "x"}, 400),
        ({"name": "n", "content": "x" * (4 * layout.CONTENT_BYTES_MAX)}, 413),
    ],
)
async def test_forms_that_break_a_rule_are_refused_in_the_charts_shape(
    make_client: ClientOf, form: dict[str, Any], status: int
) -> None:
    answer = await make_client().post("/charts", params=ADA, data=form)
    assert answer.status_code == status
    assert answer.json()["status"] == "error"
    assert answer.json()["message"]


async def test_content_of_any_text_comes_back_as_it_was(make_client: ClientOf) -> None:
    client = make_client()
    content = "€ 🚀 \r\n & = % + " + "ä" * 500_000
    chart = (await client.post("/charts", params=ADA, data={**CHART, "content": content})).json()
    assert (await get(client, "/charts", chart=chart["id"]))["content"] == content


async def test_a_user_keeps_so_many_and_no_more(layouts: LayoutService) -> None:
    owner = layout.Owner("usr_ada", "web")

    async def save(name: str, owner: layout.Owner = owner) -> str:
        return await layouts.save_layout(
            owner=owner,
            layout_id=None,
            name=name,
            symbol="",
            resolution="",
            content="x",
            now=NOW,
        )

    for number in range(layout.LAYOUTS_MAX):
        await save(str(number))
    with pytest.raises(ChartStorageFullError):
        await save("one more")
    assert len(await layouts.list_layouts(owner=owner)) == layout.LAYOUTS_MAX
    await save("somebody else's", layout.Owner("usr_eve", "web"))
