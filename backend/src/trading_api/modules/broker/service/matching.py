"""What quotes and time do to resting orders, done by the one holder of the matching lease."""

from collections import defaultdict
from datetime import datetime
from functools import partial

import structlog

from trading_api.modules.broker.domain.bracket import list_bracket_faults
from trading_api.modules.broker.domain.instrument import Instrument, Quote
from trading_api.modules.broker.domain.margin import compute_reservation
from trading_api.modules.broker.domain.order import BracketRole, CloseReason, Order
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.domain.risk import may_fill
from trading_api.modules.broker.errors import MarketUnavailableError
from trading_api.modules.broker.ports import InstrumentSource, Venue
from trading_api.modules.broker.repository import BrokerRepository
from trading_api.modules.broker.service.ahead import AheadReader
from trading_api.modules.broker.service.apart import each_apart
from trading_api.modules.broker.service.desk import Books, Desk
from trading_api.modules.broker.service.floor import Floor
from trading_api.runtime.database import Database, Lease, Leases, Transaction

log = structlog.get_logger("broker")

_PAGE = 500
_CHECKED_ACCOUNTS = 100
"""Of a start's page: each comes with every order it has open."""
_ACCOUNTS_AT_ONCE = 64


class MatchingService:
    """Fills, triggers and expires resting orders, account by account."""

    def __init__(
        self,
        *,
        database: Database,
        books: Books,
        instruments: InstrumentSource,
        leases: Leases,
        venue: Venue,
        floor: Floor,
        ahead: AheadReader,
    ) -> None:
        self._database = database
        self._books = books
        self._instruments = instruments
        self._leases = leases
        self._venue = venue
        self._floor = floor
        self._ahead = ahead

    @property
    def _repository(self) -> BrokerRepository:
        return self._books.repository

    async def on_quote(self, *, quote: Quote, lease: Lease, now: datetime) -> int:
        """Match every resting order of an instrument on a quote; return how many changed.

        A stale quote matches nothing, so quotes missed while nobody matched are never made up
        for. Each account is a transaction of its own that checks the lease first, and one that
        fails stops no other; orders of one account match in the order of their acceptance,
        take-profits last. Repeating a quote changes nothing, and so does one of outside the
        trading hours.

        Raises:
            LeaseLostError: another instance matches now; nothing more was changed.
        """
        if not quote.is_fresh(now):
            return 0
        instrument = await self._find_instrument(quote)
        if instrument is None or not self._venue.is_open(instrument, now):
            return 0
        changed, after = 0, ""
        while True:
            async with self._database.snapshot() as snapshot:
                found = await self._repository.list_matchable(
                    snapshot, quote, limit=_PAGE, after=after
                )
            changed += await self._each_account(found, (instrument, quote), lease, now)
            if len(found) < _PAGE:
                return changed
            after = found[-1][1]

    async def expire(self, *, lease: Lease, now: datetime) -> int:
        """End the open orders whose time is over, account by account; return how many.

        Raises:
            LeaseLostError: another instance matches now; nothing more was changed.
        """
        changed, after = 0, ""
        while True:
            async with self._database.snapshot() as snapshot:
                found = await self._repository.list_expired(snapshot, now, limit=_PAGE, after=after)
            changed += await self._each_account(found, None, lease, now)
            if len(found) < _PAGE:
                return changed
            after = found[-1][1]

    async def list_waiting_symbols(self) -> list[str]:
        """Return the instruments that open orders wait for."""
        async with self._database.snapshot() as snapshot:
            return await self._repository.list_symbols_with_open_orders(snapshot)

    async def reconcile(self, *, now: datetime) -> int:
        """Make reservations and brackets what orders and positions ask for; return the corrections.

        Runs at start: a difference would be a fault of ours, so each is logged as an error. An
        account that fails keeps no other from trading. Quotes that were missed are not made up for.
        """
        corrected, after = 0, ""
        while True:
            async with self._database.snapshot() as snapshot:
                found = await self._repository.list_reserving_accounts(
                    snapshot, after=after, limit=_CHECKED_ACCOUNTS
                )
                positions = await self._repository.list_positions_of(snapshot, found)
                orders = await self._repository.list_live_orders_of(snapshot, found)
            # Nearly all are right, and that takes no lock to see.
            faulty = [
                each for each in found if _is_faulty(positions.get(each, []), orders.get(each, []))
            ]
            corrected += await each_apart(
                faulty, partial(self._reconcile, now=now), work="reconciling"
            )
            if len(found) < _CHECKED_ACCOUNTS:
                return corrected
            after = found[-1]

    async def _find_instrument(self, quote: Quote) -> Instrument | None:
        try:
            found = await self._instruments.find(quote.symbol)
        except MarketUnavailableError:
            # Quotes without instruments: the market is starting; later quotes will do.
            return None
        return None if found is None or found.price_scale != quote.price_scale else found

    async def _reconcile(self, account_id: str, now: datetime) -> int:
        async def command(transaction: Transaction) -> int:
            desk = await Desk.open(self._books, transaction, account_id, now)
            assert desk is not None, "accounts are never deleted"
            await desk.load_orders()
            corrected = 0
            for symbol, position in sorted(desk.positions.items()):
                if position.own_id is not None:
                    continue
                desk.reserve(symbol)
                expected = desk.positions[symbol].reserved_minor
                if expected != position.reserved_minor:
                    corrected += 1
                    log.error(
                        "reservation_corrected",
                        account_id=account_id,
                        symbol=symbol,
                        stored_minor=position.reserved_minor,
                        expected_minor=expected,
                    )
            for fault in list_bracket_faults(desk.positions.values(), desk.orders.values()):
                corrected += 1
                log.error(
                    "bracket_corrected",
                    account_id=account_id,
                    order_id=fault.leg.order_id,
                    reason=fault.message,
                )
                leg = desk.orders[fault.leg.order_id]
                if fault.quantity:
                    await desk.tell_order(leg.resize(fault.quantity, now), is_modified=True)
                else:
                    await self._floor.cancel(desk, leg, CloseReason.POSITION_CLOSED)
            await desk.close()
            return corrected

        return await self._database.group(command, key=account_id)

    async def _each_account(
        self,
        found: list[tuple[str, str]],
        market: tuple[Instrument, Quote] | None,
        lease: Lease,
        now: datetime,
    ) -> int:
        by_account: defaultdict[str, list[str]] = defaultdict(list)
        for account_id, order_id in found:
            by_account[account_id].append(order_id)

        async def act(account_id: str) -> int:
            return await self._on_account(account_id, by_account[account_id], market, lease, now)

        # In id order, so that groups of two instances can't lock crosswise.
        return await each_apart(sorted(by_account), act, work="matching", at_once=_ACCOUNTS_AT_ONCE)

    async def _on_account(
        self,
        account_id: str,
        order_ids: list[str],
        market: tuple[Instrument, Quote] | None,
        lease: Lease,
        now: datetime,
    ) -> int:
        async def command(transaction: Transaction) -> int:
            await self._leases.ensure_held(transaction, lease)
            desk = await Desk.open(self._books, transaction, account_id, now)
            assert desk is not None, "accounts are never deleted"
            await desk.load_orders(market[1].symbol if market else None)
            changed = 0
            for order_id in _in_turn(order_ids, desk):
                changed += await self._on_order(desk, order_id, market)
            await desk.close()
            return changed

        ahead = self._ahead.of(account_id, market[1].symbol) if market else None
        return await self._database.group(command, key=account_id, ahead=ahead)

    async def _on_order(
        self, desk: Desk, order_id: str, market: tuple[Instrument, Quote] | None
    ) -> bool:
        # An earlier order of this desk may have canceled, resized or filled it.
        order = desk.orders.get(order_id)
        if order is None or not order.is_open:
            return False
        if order.expires_at is not None and order.expires_at <= desk.now:
            await self._floor.expire(desk, order)
            return True
        if market is None or not may_fill(desk.account, order, desk.positions[order.symbol]):
            return False
        return await self._floor.meet(desk, order, *market)


def _in_turn(order_ids: list[str], desk: Desk) -> list[str]:
    """Return orders as the venue works them: oldest first, take-profits after everything else."""
    profits = {
        order.order_id for order in desk.orders.values() if order.role is BracketRole.TAKE_PROFIT
    }
    return sorted(order_ids, key=lambda each: (each in profits, each))


def _is_faulty(positions: list[Position], orders: list[Order]) -> bool:
    """Tell whether reservations or brackets of one account aren't what they should be."""
    for position in positions:
        if position.own_id is None:
            theirs = [each for each in orders if each.symbol == position.symbol and each.is_open]
            if compute_reservation(position, theirs) != position.reserved_minor:
                return True
    return any(True for _ in list_bracket_faults(positions, orders))
