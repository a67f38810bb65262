"""Each proof catches the fault it is there for, and what must not change can't be changed."""

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from trading_api.modules.broker import tables
from trading_api.modules.broker.tests.builders import SELL, a_ticket
from trading_api.modules.broker.tests.conftest import Venue

_REWRITE = "UPDATE broker.account_events SET payload = REPLACE(payload, '{before}', '{after}')"

FAULTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "filled value": ("UPDATE broker.orders SET filled_value = filled_value + 1", ("O1", "O15")),
    "cost": ("UPDATE broker.positions SET cost = cost + 1 WHERE cost > 0", ("P1", "O15")),
    "commission": ("UPDATE broker.positions SET commission_minor = 0", ("P1", "O15")),
    "financing": ("UPDATE broker.positions SET financing_minor = 1", ("P2",)),
    "sample": (
        "UPDATE broker.equity_samples SET equity_minor = 1, exposure_minor = 0",
        ("P3",),
    ),
    "reservation": ("UPDATE broker.positions SET reserved_minor = 0", ("O12",)),
    "lost event": ("DELETE FROM broker.account_events WHERE sequence = 4", ("O14", "O6", "O15")),
    "wrong count": ("UPDATE broker.accounts SET event_sequence = 99", ("O14",)),
    "impossible step": (
        _REWRITE.format(before="ACCEPTED", after="EXPIRED"),
        ("O5", "O15"),
    ),
    "leg too large": (
        "UPDATE broker.orders SET quantity = quantity + 1 WHERE bracket_role = 'TAKE_PROFIT'",
        ("O8", "O15"),
    ),
    "orphan": (
        "UPDATE broker.orders SET parent_id = 'DEMO:MSFT' WHERE bracket_role = 'TAKE_PROFIT'",
        ("O8", "O15"),
    ),
    "hidden brackets": ("UPDATE broker.positions SET brackets = NULL", ("O8", "O15")),
    "kill rests": (
        (
            "UPDATE broker.orders SET status = 'PARTIALLY_FILLED', filled_quantity = 1, "
            "time_in_force = 'IOC' WHERE status = 'ACCEPTED' AND bracket_role IS NULL"
        ),
        ("O1", "O9", "O12", "O15"),
    ),
    "fill retold": (
        _REWRITE.format(before='19990,"quote_ask', after='19980,"quote_ask'),
        ("O6",),
    ),
    "other price": (
        _REWRITE.format(before='15000,"trigger', after='15100,"trigger'),
        ("O15",),
    ),
    "limit moved": (
        _REWRITE.format(before='20000,"trigger', after='19000,"trigger'),
        ("O3", "O15"),
    ),
    "cash": (
        "UPDATE broker.ledger_accounts SET balance_minor = balance_minor + 1 WHERE is_customer",
        ("L3", "L2", "L5", "L13"),
    ),
}


@pytest.fixture
async def traded(venue: Venue) -> Venue:
    await venue.place(a_ticket(10, limit="200", take_profit="210", stop_loss="190"))
    await venue.place(a_ticket(4, side=SELL))
    await venue.place(a_ticket(5, limit="150"))
    await venue.performance.sample(lease=await venue.lease(), now=venue.now)
    await venue.verify()
    return venue


@pytest.mark.parametrize("fault", FAULTS)
async def test_planted_fault_is_found(traded: Venue, fault: str) -> None:
    statement, expected = FAULTS[fault]
    async with traded.database.transaction() as transaction:
        await transaction.execute(sa.text(statement))
    found = {violation.id for violation in await traded.reports.verify()}
    assert expected[0] in found
    assert found <= set(expected)


async def test_debt_of_an_account_that_holds_nothing_is_found(venue: Venue) -> None:
    await venue.state()
    async with venue.database.transaction() as transaction:
        await transaction.execute(
            sa.text("UPDATE broker.ledger_accounts SET balance_minor = -1 WHERE is_customer")
        )
    assert "P6" in {violation.id for violation in await venue.reports.verify()}


async def test_execution_from_nowhere_is_found(traded: Venue) -> None:
    async with traded.database.transaction() as transaction:
        row = await transaction.first(sa.select(tables.executions).limit(1))
        assert row is not None
        forged = {**row._mapping, "execution_id": "exe_forged", "sequence": 77}
        await transaction.execute(tables.executions.insert(), forged)
    found = {violation.id for violation in await traded.reports.verify()}
    assert {"O1", "P1", "P2"} <= found


@pytest.mark.parametrize(
    "statement", ["UPDATE broker.executions SET price = 1", "DELETE FROM broker.executions"]
)
async def test_executions_can_t_be_changed(traded: Venue, statement: str) -> None:
    with pytest.raises(DBAPIError, match="append-only"):
        async with traded.database.transaction() as transaction:
            await transaction.execute(sa.text(statement))
