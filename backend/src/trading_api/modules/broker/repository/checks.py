"""Proofs over stored accounts: read-only, from scratch, by folding the executions anew.

Each check has the id of the invariant it proves:

* O1 filled quantity and value are the sums of the order's executions
* O3 no fill outside the limit, none of a stop before its trigger
* O4 a fill is inside the quote it names and the slippage it declares, that quote was fresh, and
  it isn't from before a resting order's acceptance
* O5 an order's status agrees with what is filled, and every stored step of its events is allowed
* O6 an execution id names one execution, and the account's log shows it as it is stored
* O7 a client order id names one order
* O8 a position's legs are at most one of a role, as large as it is, and none without it; an
  entry's held legs are as large as the entry
* O9 what fills at once or not at all never rests, nothing outlives its time, a reduce-only fill
  never makes a position larger, a post-only order never takes
* O11 quantities and prices of what is stored are above zero and within the order
* O12 what is reserved is what the open orders ask for; closed orders reserve nothing
* O14 an account's events are numbered without a gap, and its newest number is stored
* O15 replaying the account's log gives the orders and positions that are stored
* P1 a position is the sum of its executions, at the cost they leave
* P2 cash is the opening balance, all results and all commissions, to the cent
* P2 financing of an instrument is what was posted for it
* P3 a sample's equity is its cash where the account held nothing
* P5 the house's result is the opposite of all accounts' results
* P6 an account that holds nothing owes nothing: the house has borne it
* P4 results and closed quantities of every execution follow from those before it
* T1, T2 transfers agree with the ledger, see `repository.transfers`
* L… the ledger's own proofs
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from trading_api.ledger.checks import Violation, check_ledger
from trading_api.modules.broker import tables
from trading_api.modules.broker.domain.arithmetic import divide_half_even
from trading_api.modules.broker.domain.bracket import list_bracket_faults, pair_of, with_leg
from trading_api.modules.broker.domain.event import AccountEvent
from trading_api.modules.broker.domain.execution import Execution
from trading_api.modules.broker.domain.instrument import COST_SCALE, QUOTE_AGE_MAX
from trading_api.modules.broker.domain.margin import compute_reservation
from trading_api.modules.broker.domain.matching import Liquidity
from trading_api.modules.broker.domain.order import (
    NO_BRACKETS,
    TRANSITIONS,
    Order,
    OrderSide,
    OrderStatus,
    TimeInForce,
)
from trading_api.modules.broker.domain.position import Position, add_results, apply_fill
from trading_api.modules.broker.repository import rows
from trading_api.modules.broker.repository.transfers import check_transfers
from trading_api.runtime.database import Transaction

__all__ = ["BROKER_CHECKS", "Violation", "check_broker", "check_ledger_of", "check_trading"]

BROKER_CHECKS = (
    *("O1", "O3", "O4", "O5", "O6", "O7", "O8", "O9", "O11", "O12", "O14", "O15"),
    *("P1", "P2", "P4", "P6", "T1", "T2"),
)
"""What `check_trading` proves."""

EXPIRY_DELAY_MAX = timedelta(seconds=1)
"""An order ends at most this long after its time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def check_broker(transaction: Transaction) -> list[Violation]:
    """Prove every account; an empty list means that everything holds.

    Reads each account whole, one after the other; run it on a snapshot.
    """
    return [
        *await check_ledger_of(transaction),
        *await check_trading(transaction),
    ]


async def check_ledger_of(transaction: Transaction) -> list[Violation]:
    """Prove the ledger of the accounts' cash."""
    return await check_ledger(transaction, tables.ledger)


async def check_trading(transaction: Transaction) -> list[Violation]:
    """Prove every account against its ledger, without the ledger's own proofs."""
    found = await check_transfers(transaction)
    found += await _check_samples(transaction)
    found += await _check_house(transaction)
    accounts = tables.accounts
    for row in await transaction.all(sa.select(accounts).order_by(accounts.c.account_id)):
        found += await _check_account(transaction, row._mapping)
    return found


async def _check_account(transaction: Transaction, account: Any) -> list[Violation]:
    account_id = account["account_id"]
    orders = [
        rows.order_of(row) for row in await _all(transaction, tables.orders, account_id, "order_id")
    ]
    executions = [
        rows.execution_of(row)
        for row in await _all(transaction, tables.executions, account_id, "sequence")
    ]
    positions = [
        rows.position_of(row)
        for row in await _all(transaction, tables.positions, account_id, "position_id")
    ]
    events = [
        rows.event_of(row)
        for row in await _all(transaction, tables.account_events, account_id, "sequence")
    ]
    return [
        *_check_orders(orders, executions),
        *_check_quotes(executions, events),
        *_check_brackets(positions, orders),
        *_check_replay(account_id, orders, executions, positions, events),
        *_check_positions(account_id, positions, executions),
        *_check_reservations(positions, orders),
        *_check_events(account_id, account["event_sequence"], events),
        *await _check_cash(transaction, account, executions),
        *await _check_financing(transaction, account, positions),
        *await _check_debt(transaction, account, positions),
    ]


async def _all(
    transaction: Transaction, table: sa.Table, account_id: str, order_by: str
) -> list[Any]:
    found = await transaction.all(
        sa.select(table).where(table.c.account_id == account_id).order_by(table.c[order_by])
    )
    return [row._mapping for row in found]


def _check_orders(orders: Sequence[Order], executions: Sequence[Execution]) -> Iterator[Violation]:
    by_order: defaultdict[str, list[Execution]] = defaultdict(list)
    for execution in executions:
        by_order[execution.order_id].append(execution)
    client_ids: set[str] = set()
    for order in orders:
        theirs = by_order.pop(order.order_id, [])
        quantity = sum(each.quantity for each in theirs)
        value = sum(each.quantity * each.price for each in theirs)
        if (quantity, value) != (order.filled_quantity, order.filled_value):
            yield Violation(
                "O1",
                order.order_id,
                f"filled {order.filled_quantity} for {order.filled_value}, "
                f"its executions say {quantity} for {value}",
            )
        if any((each.symbol, each.side) != (order.symbol, order.side) for each in theirs):
            yield Violation("O1", order.order_id, "an execution is of another instrument or side")
        is_filled = order.status is OrderStatus.FILLED
        if is_filled != (order.filled_quantity == order.quantity) or (
            order.status is OrderStatus.PARTIALLY_FILLED and not order.filled_quantity
        ):
            yield Violation("O5", order.order_id, f"{order.status} does not agree with its fills")
        if order.is_at_once and order.is_open and order.filled_quantity:
            yield Violation("O9", order.order_id, "it rests, though it should fill at once")
        if order.client_order_id is not None:
            if order.client_order_id in client_ids:
                yield Violation("O7", order.order_id, "its client order id names another order")
            client_ids.add(order.client_order_id)
    for order_id in by_order:
        yield Violation("O1", order_id, "executions name an order that isn't there")


def _check_quotes(
    executions: Sequence[Execution], events: Sequence[AccountEvent]
) -> Iterator[Violation]:
    # An order may have been modified since, so each fill is held against the order of its time.
    orders: dict[str, Order] = {}
    by_sequence = {execution.sequence: execution for execution in executions}
    for event in events:
        if isinstance(event.subject, Order):
            orders[event.subject.order_id] = event.subject
        execution = by_sequence.get(event.sequence)
        if execution is not None:
            yield from _check_fill(execution, orders.get(execution.order_id))


def _check_fill(execution: Execution, order: Order | None) -> Iterator[Violation]:
    subject = execution.execution_id
    touch = execution.quote_ask if execution.side is OrderSide.BUY else execution.quote_bid
    if execution.side.sign * (execution.price - touch) != execution.slippage:
        yield Violation("O4", subject, "the price isn't its quote's and the declared slippage")
    if execution.executed_at - execution.quote_at >= QUOTE_AGE_MAX:
        yield Violation("O4", subject, "the quote was stale")
    if order is None:
        return
    sign = order.side.sign
    if order.limit_price is not None and sign * (order.limit_price - execution.price) < 0:
        yield Violation("O3", subject, "the price is worse than the limit")
    # What is new takes the newest quote; a stop fills on the quote that has triggered it.
    is_triggered = order.status is OrderStatus.TRIGGERED
    begun_at = order.updated_at if is_triggered else order.accepted_at
    is_new = execution.executed_at == begun_at
    if execution.quote_sequence < order.quote_sequence + (0 if is_new else 1):
        yield Violation("O4", subject, "a resting order met a quote from before it")
    if order.post_only and execution.liquidity is Liquidity.TAKER:
        yield Violation("O9", subject, "a post-only order took")
    if order.reduce_only and execution.closed_quantity != execution.quantity:
        yield Violation("O9", subject, "a reduce-only order made a position larger")
    if order.time_in_force is TimeInForce.FOK and execution.quantity != order.quantity:
        yield Violation("O9", subject, "a fill-or-kill order filled in part")
    if order.expires_at is not None and execution.executed_at > order.expires_at + EXPIRY_DELAY_MAX:
        yield Violation("O9", subject, "an order filled after its time")
    if order.is_waiting_for_trigger:
        yield Violation("O3", subject, "a stop filled before its trigger")


def _check_positions(
    account_id: str, positions: Sequence[Position], executions: Sequence[Execution]
) -> Iterator[Violation]:
    folded = {
        position.position_id: replace(
            position,
            signed_quantity=0,
            cost=0,
            realized_minor=0,
            commission_minor=0,
            last_price=0,
            opened_at=None,
        )
        for position in positions
    }
    for execution in executions:
        before, own = folded.get(execution.position_id), folded.get(execution.symbol)
        if before is None or own is None:
            yield Violation("P1", account_id, f"no position row for {execution.position_id}")
            continue
        # Results convert at the rate of their own fill.
        before = replace(before, terms=replace(before.terms, conversion=execution.conversion))
        after, effect = apply_fill(
            before,
            side=execution.side,
            quantity=execution.quantity,
            price=execution.price,
            now=execution.executed_at,
        )
        # Commission depends on the terms of its day; the execution is its record.
        effect = replace(effect, commission_minor=execution.commission_minor)
        folded[after.position_id] = replace(
            after, commission_minor=before.commission_minor + execution.commission_minor
        )
        if after.own_id is not None:
            folded[own.position_id] = add_results(
                own, effect, price=execution.price, now=execution.executed_at
            )
        if (
            effect.closed_quantity != execution.closed_quantity
            or effect.realized != execution.realized
            or effect.realized_minor != execution.realized_minor
            or after.signed_quantity != execution.signed_quantity_after
        ):
            yield Violation("P4", execution.execution_id, "does not follow from those before it")
    for position in positions:
        expected = folded[position.position_id]
        stored = (
            position.signed_quantity,
            position.cost,
            position.realized_minor,
            position.commission_minor,
        )
        wanted = (
            expected.signed_quantity,
            expected.cost,
            expected.realized_minor,
            expected.commission_minor,
        )
        if stored != wanted:
            yield Violation(
                "P1",
                f"{account_id} {position.position_id}",
                f"(quantity, cost, realized, commission) {stored}, executions say {wanted}",
            )


def _check_reservations(
    positions: Sequence[Position], orders: Sequence[Order]
) -> Iterator[Violation]:
    open_orders = [order for order in orders if order.is_open]
    for position in positions:
        if position.own_id is not None:
            continue
        theirs = [order for order in open_orders if order.symbol == position.symbol]
        expected = compute_reservation(position, theirs)
        if expected != position.reserved_minor:
            yield Violation(
                "O12",
                f"{position.account_id} {position.symbol}",
                f"{position.reserved_minor} reserved, open orders ask for {expected}",
            )
    symbols = {position.symbol for position in positions}
    for order in open_orders:
        if order.symbol not in symbols and not order.reduce_only:
            yield Violation("O12", order.order_id, "an open order without a reservation")


def _check_brackets(positions: Sequence[Position], orders: Sequence[Order]) -> Iterator[Violation]:
    live = [order for order in orders if order.is_live]
    for fault in list_bracket_faults(positions, live):
        yield Violation("O8", fault.leg.order_id, fault.message)
    for position in positions:
        shown = NO_BRACKETS
        for leg in pair_of(position.position_id, live):
            shown = with_leg(shown, leg)
        if shown != position.brackets:
            yield Violation("O8", position.position_id, "it shows other brackets than it has")


def _check_replay(
    account_id: str,
    orders: Sequence[Order],
    executions: Sequence[Execution],
    positions: Sequence[Position],
    events: Sequence[AccountEvent],
) -> Iterator[Violation]:
    """Compare what is stored with the last that the log told of it; old events may be gone."""
    last: dict[str, Order | Position] = {}
    told: dict[str, Execution] = {}
    for event in events:
        subject = event.subject
        if isinstance(subject, Order):
            last[subject.order_id] = subject
        elif isinstance(subject, Position):
            last[subject.position_id] = subject
        elif isinstance(subject, Execution):
            if subject.execution_id in told:
                yield Violation("O6", subject.execution_id, "the log shows it twice")
            told[subject.execution_id] = subject
    for order in orders:
        if last.get(order.order_id, order) != order:
            yield Violation("O15", order.order_id, "the log's last word on it is another")
    for position in positions:
        shown = last.get(position.position_id, position)
        assert isinstance(shown, Position), "orders and positions have other ids"
        if _bare(shown) != _bare(position):
            subject_id = f"{account_id} {position.position_id}"
            yield Violation("O15", subject_id, "the log's last word on it is another")
    first = events[0].sequence if events else 0
    for execution in executions:
        if execution.sequence >= first and told.get(execution.execution_id) != execution:
            yield Violation("O6", execution.execution_id, "the log doesn't show it as it is")


def _bare(position: Position) -> Position:
    # Reservations follow from the orders; results of single entries and terms show with the next
    # event of the instrument's own position.
    bare = replace(
        position,
        reserved_minor=0,
        financing_minor=0,
        terms=replace(position.terms, leverage=1, commission_ppm=0, conversion=None),
        updated_at=_EPOCH,
    )
    if position.own_id is None and position.is_flat:
        return replace(bare, realized_minor=0, commission_minor=0, last_price=0)
    return bare


def _check_events(
    account_id: str, last: int, events: Sequence[AccountEvent]
) -> Iterator[Violation]:
    expected = list(range(last - len(events) + 1, last + 1))
    if [event.sequence for event in events] != expected:
        yield Violation("O14", account_id, f"events are not numbered without a gap up to {last}")
    statuses: dict[str, OrderStatus] = {}
    for event in events:
        subject = event.subject
        if not isinstance(subject, Order):
            continue
        before = statuses.get(subject.order_id, subject.status)
        if before is not subject.status and subject.status not in TRANSITIONS[before]:
            yield Violation("O5", subject.order_id, f"went from {before} to {subject.status}")
        statuses[subject.order_id] = subject.status


async def _check_cash(
    transaction: Transaction, account: Any, executions: Sequence[Execution]
) -> list[Violation]:
    """Compare the trading entries of the ledger with the executions, execution by execution."""
    cash_id = f"{account['account_id']}:{account['currency']}"
    entries, postings = tables.ledger.entries, tables.ledger.postings
    found = await transaction.all(
        sa.select(entries.c.type, entries.c.reference, postings.c.side, postings.c.amount_minor)
        .join_from(postings, entries, postings.c.entry_id == entries.c.entry_id)
        .where(
            postings.c.account_id == cash_id,
            entries.c.type.in_(("REALIZED_PNL", "FEE_COMMISSION")),
        )
    )
    posted: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in found:
        signed = row.amount_minor if row.side == "CREDIT" else -row.amount_minor
        posted[row.type, row.reference] += signed
    violations = []
    for execution in executions:
        expected = {
            "REALIZED_PNL": execution.realized_minor,
            "FEE_COMMISSION": -execution.commission_minor,
        }
        for type_, amount in expected.items():
            stored = posted.pop((type_, execution.execution_id), 0)
            if stored != amount:
                violations.append(
                    Violation(
                        "P2",
                        execution.execution_id,
                        f"{type_}: {stored} posted, the execution says {amount}",
                    )
                )
    violations += [
        Violation("P2", str(reference), f"{type_} of {amount} without an execution")
        for (type_, reference), amount in posted.items()
    ]
    return violations


async def _check_financing(
    transaction: Transaction, account: Any, positions: Sequence[Position]
) -> list[Violation]:
    """Compare what positions say they cost overnight with the ledger."""
    cash_id = f"{account['account_id']}:{account['currency']}"
    entries, postings = tables.ledger.entries, tables.ledger.postings
    posted: defaultdict[str, int] = defaultdict(int)
    for row in await transaction.all(
        sa.select(entries.c.reference, postings.c.side, postings.c.amount_minor)
        .join_from(postings, entries, postings.c.entry_id == entries.c.entry_id)
        .where(postings.c.account_id == cash_id, entries.c.type == "FINANCING")
    ):
        symbol = row.reference.partition(" ")[0]
        posted[symbol] += row.amount_minor if row.side == "DEBIT" else -row.amount_minor
    for position in positions:
        posted[position.symbol] -= position.financing_minor
    return [
        Violation(
            "P2", f"{account['account_id']} {symbol}", f"financing differs from postings by {each}"
        )
        for symbol, each in sorted(posted.items())
        if each
    ]


async def _check_debt(
    transaction: Transaction, account: Any, positions: Sequence[Position]
) -> list[Violation]:
    """Look for cash below zero that nothing held could earn back."""
    account_id, held = account["account_id"], tables.ledger.accounts
    cash_minor = await transaction.scalar(
        sa.select(held.c.balance_minor).where(
            held.c.account_id == f"{account_id}:{account['currency']}"
        )
    )
    if cash_minor >= 0 or any(not each.is_flat for each in positions):
        return []
    return [Violation("P6", account_id, f"holds nothing and owes {-cash_minor}")]


async def _check_samples(transaction: Transaction) -> list[Violation]:
    """Hold stored samples against each other: without exposure, equity is cash."""
    table = tables.equity_samples
    found = await transaction.all(
        sa.select(table.c.account_id, table.c.at_us).where(
            table.c.exposure_minor == 0,
            sa.or_(table.c.equity_minor != table.c.cash_minor, table.c.margin_minor != 0),
        )
    )
    return [
        Violation("P3", row.account_id, f"the sample at {row.at_us} has results without positions")
        for row in found
    ]


async def _check_house(transaction: Transaction) -> list[Violation]:
    """Hold what the house won and lost against what all accounts did, by book and currency."""
    accounts, executions = tables.accounts, tables.executions
    theirs: defaultdict[str, int] = defaultdict(int)
    for row in await transaction.all(
        sa.select(
            accounts.c.book,
            executions.c.currency,
            # Converted results stand on the house's account in their own currency; see below.
            sa.func.sum(
                sa.case((executions.c.conversion.is_(None), executions.c.realized_minor), else_=0)
            ).label("realized"),
            sa.func.sum(executions.c.commission_minor).label("commission"),
        )
        .join_from(executions, accounts, accounts.c.account_id == executions.c.account_id)
        .group_by(accounts.c.book, executions.c.currency)
    ):
        theirs[f"house:pnl:{row.book}:{row.currency}"] -= int(row.realized)
        theirs[f"house:commission:{row.book}:{row.currency}"] += int(row.commission)
    for row in await transaction.all(
        sa.select(accounts.c.book, executions.c.realized, executions.c.conversion)
        .join_from(executions, accounts, accounts.c.account_id == executions.c.account_id)
        .where(executions.c.conversion.is_not(None))
    ):
        conversion = rows.conversion_of(row.conversion)
        assert conversion is not None, "the query asked for those that have one"
        theirs_currency = conversion.quote_currency
        result = divide_half_even(row.realized, int(10 ** (COST_SCALE - theirs_currency.scale)))
        theirs[f"house:pnl:{row.book}:{theirs_currency.code}"] -= result
    postings = tables.ledger.postings
    signed = sa.case(
        (postings.c.side == "CREDIT", postings.c.amount_minor), else_=-postings.c.amount_minor
    )
    for row in await transaction.all(
        sa.select(postings.c.account_id, sa.func.sum(signed).label("balance"))
        .where(
            sa.or_(
                postings.c.account_id.like("house:pnl:%"),
                postings.c.account_id.like("house:commission:%"),
            )
        )
        .group_by(postings.c.account_id)
    ):
        theirs[row.account_id] -= int(row.balance)
    return [
        Violation("P5", account_id, f"differs from what the accounts' executions say by {each}")
        for account_id, each in sorted(theirs.items())
        if each
    ]
