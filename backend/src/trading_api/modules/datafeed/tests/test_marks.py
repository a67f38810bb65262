"""Marks lie on bars: the user's executions on prices, splits under the time scale."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from trading_api.kernel.errors import UnavailableError
from trading_api.modules.datafeed.api.v1 import trader_of
from trading_api.modules.datafeed.domain.demo import Split
from trading_api.modules.datafeed.domain.mark import (
    OwnExecution,
    place_executions,
    place_splits,
)
from trading_api.modules.datafeed.tests.builders import seconds
from trading_api.modules.datafeed.tests.conftest import NOW, PREFIX, ClientOf
from trading_api.runtime.http import Access
from trading_api.runtime.identity import Principal

NOW_SECONDS = int(NOW.timestamp())


def an_execution(number: int, at: datetime, *, is_buy: bool = True) -> OwnExecution:
    return OwnExecution(
        id=f"exe_{number:03}",
        at=at,
        is_buy=is_buy,
        quantity=Decimal(10),
        price=Decimal("430.47"),
        is_closing=not is_buy,
    )


class Executions:
    """An ``ExecutionSource`` that knows one user's fills of one symbol."""

    def __init__(self, *known: OwnExecution) -> None:
        self.known = known

    async def list_executions(
        self, *, user_id: str, symbol: str, from_: datetime, to: datetime, limit: int
    ) -> Sequence[OwnExecution]:
        if (user_id, symbol) != ("usr_tests", "DEMO:AAPL"):
            return ()
        return [each for each in self.known if from_ <= each.at < to][:limit]


class Away:
    """An ``ExecutionSource`` that doesn't answer."""

    async def list_executions(
        self, *, user_id: str, symbol: str, from_: datetime, to: datetime, limit: int
    ) -> Sequence[OwnExecution]:
        raise UnavailableError("away", retry_after_seconds=1)


async def test_executions_are_marked_on_the_bar_they_fell_into(client_of: ClientOf) -> None:
    bought = an_execution(1, NOW - timedelta(hours=2))
    sold = an_execution(2, NOW - timedelta(seconds=1), is_buy=False)
    known = Executions(bought, sold)
    client = client_of("datafeed:read", "broker:read", executions=known)
    window: dict[str, str | int] = {
        "from": NOW_SECONDS - 86_400,
        "to": NOW_SECONDS,
        "resolution": "60",
    }
    marks = (await client.get(f"{PREFIX}/udf/marks", params={"symbol": "AAPL", **window})).json()
    hour = NOW_SECONDS // 3_600 * 3_600
    assert [(mark["id"], mark["time"], mark["label"]) for mark in marks] == [
        ("exe_001", hour - 7_200, "B"),
        ("exe_002", hour, "S"),
    ]
    assert marks[0]["text"] == "Bought 10 at 430.47, 2025-11-21 23:02:03 UTC"
    history = (
        await client.get(
            f"{PREFIX}/udf/history", params={"symbol": "AAPL", **window, "countback": 30}
        )
    ).json()
    assert {mark["time"] for mark in marks} <= set(history["t"])
    native = (
        await client.get(f"{PREFIX}/marks", params={"symbol": "AAPL", "resolution": "1D"})
    ).json()
    assert [(each["kind"], each["side"], each["price"]) for each in native] == [
        ("execution", "buy", "430.47"),
        ("execution", "sell", "430.47"),
    ]
    # Who may read market data mayn't therefore see what somebody trades.
    for stranger in (
        client_of("datafeed:read", executions=known),
        client_of("datafeed:read", access=Access.public(), executions=known),
        client_of(access=Access.public(), executions=known),
    ):
        for path in ("udf/marks", "marks"):
            answer = await stranger.get(f"{PREFIX}/{path}", params={"symbol": "AAPL", **window})
            assert (answer.status_code, answer.json()) == (200, [])


def test_a_share_token_names_no_trader_although_it_reads_the_broker() -> None:
    owner = Principal(
        user_id="usr_tests",
        session_id="ses_tests",
        roles=frozenset(),
        scopes=frozenset({"datafeed:read", "broker:read"}),
        carrier="api_key",
        expires_at_seconds=0,
    )
    assert trader_of(owner) == "usr_tests"
    assert trader_of(replace(owner, account_id="acc_1")) is None


async def test_splits_are_marked_under_the_time_scale_of_hist_alone(client_of: ClientOf) -> None:
    client = client_of("datafeed:read")
    window: dict[str, str | int] = {"from": 0, "to": NOW_SECONDS, "resolution": "D"}
    marks = (
        await client.get(f"{PREFIX}/udf/timescale_marks", params={"symbol": "HIST:AAPL", **window})
    ).json()
    assert [mark["time"] for mark in marks] == [seconds("2000-06-21"), seconds("2005-02-28")]
    assert marks[0]["tooltip"][0] == "Split 2:1"
    weekly = (
        await client.get(
            f"{PREFIX}/udf/timescale_marks",
            params={"symbol": "HIST:AAPL", **window, "resolution": "W"},
        )
    ).json()
    # Of the weeks' first trading days: 2000-06-19 was a Monday, 2005-02-28 too.
    assert [mark["time"] for mark in weekly] == [seconds("2000-06-19"), seconds("2005-02-28")]
    shifted = await client.get(
        f"{PREFIX}/udf/timescale_marks", params={"symbol": "DEMO:AAPL", **window}
    )
    assert shifted.json() == []
    native = (
        await client.get(f"{PREFIX}/marks", params={"symbol": "HIST:MSFT", "resolution": "D"})
    ).json()
    assert [(each["kind"], each["ratio"]) for each in native] == [("split", 2)]


async def test_marks_without_the_broker_are_an_error_of_udf_shape(client_of: ClientOf) -> None:
    client = client_of("datafeed:read", "broker:read", executions=Away())
    answer = await client.get(
        f"{PREFIX}/udf/marks?symbol=AAPL&from=0&to={NOW_SECONDS}&resolution=D"
    )
    assert answer.status_code == 503
    assert answer.json()["s"] == "error"


def test_a_bar_keeps_its_newest_ten() -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    executions = [an_execution(n, start + timedelta(seconds=n)) for n in range(25)]
    early = an_execution(99, start - timedelta(days=1))
    marks = place_executions([early, *executions], [int(start.timestamp())])
    assert [mark.execution.id for mark in marks] == [f"exe_{n:03}" for n in range(15, 25)]


def test_within_the_day_an_event_lies_on_the_days_first_bar() -> None:
    day = seconds("2026-01-05")
    closing, opening = day - 86_400 + 20 * 3_600, day + 14 * 3_600 + 1_800
    splits = [Split(day, 2)]
    (mark,) = place_splits(splits, [closing, opening, opening + 3_600], intraday=True)
    assert mark.bar_time == opening
    assert place_splits(splits, [closing], intraday=True) == []
    (mark,) = place_splits(splits, [day - 86_400, day], intraday=False)
    assert mark.bar_time == day
