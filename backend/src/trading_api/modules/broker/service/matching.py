"""What quotes and time do to resting orders, done by the one holder of the matching lease."""

import asyncio
from collections import defaultdict
from datetime import datetime

import structlog

from trading_api.modules.broker.domain.instrument import Quote
from trading_api.modules.broker.domain.margin import compute_reservation
from trading_api.modules.broker.domain.matching import Liquidity, match
from trading_api.modules.broker.domain.order import CloseReason, Order, TimeInForce
from trading_api.modules.broker.domain.risk import may_fill
from trading_api.modules.broker.ports import QuoteSource
from trading_api.modules.broker.repository import BrokerRepository
from trading_api.modules.broker.service.desk import Books, Desk
from trading_api.modules.broker.service.risk import RiskGate
from trading_api.runtime.database import Database, Lease, Leases, Transaction

log = structlog.get_logger("broker")

_PAGE = 500
_ACCOUNTS_AT_ONCE = 64
_AT_ONCE = frozenset({TimeInForce.IOC, TimeInForce.FOK})


class MatchingService:
    """Fills, triggers and expires resting orders, account by account."""

    def __init__(
        self,
        *,
        database: Database,
        books: Books,
        quotes: QuoteSource,
        leases: Leases,
        risk: RiskGate,
    ) -> None:
        self._database = database
        self._books = books
        self._quotes = quotes
        self._leases = leases
        self._risk = risk

    @property
    def _repository(self) -> BrokerRepository:
        return self._books.repository

    async def on_quote(self, *, quote: Quote, lease: Lease, now: datetime) -> int:
        """Match every resting order of an instrument on a quote; return how many changed.

        A stale quote matches nothing, so quotes missed while nobody matched are never made up
        for. Each account is a transaction of its own that checks the lease first; orders of one
        account match in the order of their acceptance. Repeating a quote changes nothing.

        Raises:
            LeaseLostError: another instance matches now; nothing more was changed.
        """
        if not quote.is_fresh(now):
            return 0
        changed, after = 0, ""
        while True:
            async with self._database.snapshot() as snapshot:
                found = await self._repository.list_matchable(
                    snapshot, quote, limit=_PAGE, after=after
                )
            changed += await self._each_account(found, quote, lease, now)
            if len(found) < _PAGE:
                return changed
            after = found[-1][1]

    async def expire(self, *, lease: Lease, now: datetime) -> int:
        """End the open orders whose time is over; return how many.

        Raises:
            LeaseLostError: another instance matches now; nothing more was changed.
        """
        changed = 0
        while True:
            async with self._database.snapshot() as snapshot:
                found = await self._repository.list_expired(snapshot, now, limit=_PAGE)
            changed += await self._each_account(found, None, lease, now)
            if len(found) < _PAGE:
                return changed

    async def list_waiting_symbols(self) -> list[str]:
        """Return the instruments that open orders wait for."""
        async with self._database.snapshot() as snapshot:
            return await self._repository.list_symbols_with_open_orders(snapshot)

    async def reconcile(self, *, now: datetime) -> int:
        """Make stored reservations equal to what the open orders ask for; return the corrections.

        Runs at start: a difference would be a fault of ours, so each is logged as an error.
        """
        corrected, after = 0, ""
        while True:
            async with self._database.snapshot() as snapshot:
                found = await self._repository.list_reserving_accounts(
                    snapshot, after=after, limit=_PAGE
                )
            for account_id in found:
                corrected += await self._reconcile(account_id, now)
            if len(found) < _PAGE:
                return corrected
            after = found[-1]

    async def _reconcile(self, account_id: str, now: datetime) -> int:
        async def command(transaction: Transaction) -> int:
            desk = await Desk.open(self._books, transaction, account_id, now)
            assert desk is not None, "accounts are never deleted"
            corrected = 0
            open_orders = await self._repository.list_open_orders(transaction, account_id)
            for symbol, position in sorted(desk.positions.items()):
                theirs = [each for each in open_orders if each.symbol == symbol]
                expected = compute_reservation(position, theirs)
                if expected != position.reserved_minor:
                    corrected += 1
                    log.error(
                        "reservation_corrected",
                        account_id=account_id,
                        symbol=symbol,
                        stored_minor=position.reserved_minor,
                        expected_minor=expected,
                    )
                    desk.reserve(symbol, theirs)
            await desk.close()
            return corrected

        return await self._database.group(command)

    async def _each_account(
        self, found: list[tuple[str, str]], quote: Quote | None, lease: Lease, now: datetime
    ) -> int:
        by_account: defaultdict[str, list[str]] = defaultdict(list)
        for account_id, order_id in found:
            by_account[account_id].append(order_id)
        changed = 0
        # In id order, so that groups of two instances can't lock crosswise.
        accounts = sorted(by_account)
        for start in range(0, len(accounts), _ACCOUNTS_AT_ONCE):
            outcomes = await asyncio.gather(
                *(
                    self._on_account(account_id, by_account[account_id], quote, lease, now)
                    for account_id in accounts[start : start + _ACCOUNTS_AT_ONCE]
                )
            )
            changed += sum(outcomes)
        return changed

    async def _on_account(
        self,
        account_id: str,
        order_ids: list[str],
        quote: Quote | None,
        lease: Lease,
        now: datetime,
    ) -> int:
        async def command(transaction: Transaction) -> int:
            await self._leases.ensure_held(transaction, lease)
            desk = await Desk.open(self._books, transaction, account_id, now)
            assert desk is not None, "accounts are never deleted"
            changed = 0
            for order_id in order_ids:
                changed += await self._on_order(desk, order_id, quote)
            await desk.close()
            return changed

        return await self._database.group(command)

    async def _on_order(self, desk: Desk, order_id: str, quote: Quote | None) -> bool:
        repository, transaction = self._repository, desk.transaction
        order = await repository.find_order(transaction, desk.account.account_id, order_id)
        if order is None or not order.is_open:
            return False
        if order.expires_at is not None and order.expires_at <= desk.now:
            changed = order.expire(desk.now)
            await desk.tell_order(changed)
        elif (
            quote is None
            or quote.sequence <= order.quote_sequence
            or not may_fill(desk.account, order, desk.positions[order.symbol])
        ):
            return False
        else:
            changed = await self._meet(desk, order, quote)
            if changed is order:
                return False
        await repository.save_order(transaction, changed)
        desk.reserve(
            order.symbol,
            await repository.list_open_orders(transaction, order.account_id, symbol=order.symbol),
        )
        return True

    async def _meet(self, desk: Desk, order: Order, quote: Quote) -> Order:
        """Return the order after a quote; the same object where the quote does nothing to it."""
        found = match(order, quote)
        if found.triggers:
            order = order.trigger(desk.now)
            await desk.tell_order(order)
            if not await self._risk.is_carried(desk, order):
                order = order.reject(CloseReason.INSUFFICIENT_MARGIN, desk.now)
                await desk.tell_order(order)
                return order
        if found.price is not None:
            return await self._fill(desk, order, found.price, quote)
        if order.time_in_force in _AT_ONCE and found.triggers:
            order = order.cancel(CloseReason.NOT_FILLED_AT_ONCE, desk.now)
            await desk.tell_order(order)
        return order

    async def _fill(self, desk: Desk, order: Order, price: int, quote: Quote) -> Order:
        quantity = order.leaves_quantity
        if order.reduce_only:
            held = desk.positions[order.symbol].signed_quantity
            quantity = min(quantity, max(0, -order.side.sign * held))
        if quantity:
            order = await desk.fill(
                order, quantity=quantity, price=price, liquidity=Liquidity.MAKER, quote=quote
            )
        if order.is_open:
            order = order.cancel(CloseReason.NOTHING_TO_REDUCE, desk.now)
            await desk.tell_order(order)
        return order
