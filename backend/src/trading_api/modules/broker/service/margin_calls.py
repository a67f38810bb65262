"""Margin calls and stop-outs, done by the one holder of their lease."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial

import structlog

from trading_api.contracts.broker import MarginCalled, StoppedOut
from trading_api.kernel.values import Currency, decimal_of
from trading_api.modules.broker.domain.account import Valuation, compute_valuation
from trading_api.modules.broker.domain.event import Notice, NoticeCode
from trading_api.modules.broker.domain.instrument import Instrument, Quote
from trading_api.modules.broker.domain.levels import (
    MARGIN_CALL_PERCENT,
    STOP_OUT_PERCENT,
    compute_level,
    is_at_most,
    is_due,
    is_restored,
    worst_of,
)
from trading_api.modules.broker.domain.order import CloseReason
from trading_api.modules.broker.errors import MarketUnavailableError
from trading_api.modules.broker.ports import InstrumentSource, QuoteSource, Venue
from trading_api.modules.broker.repository.store import Margined
from trading_api.modules.broker.service.apart import each_apart
from trading_api.modules.broker.service.closing import (
    cancel_orders,
    close_position,
    find_instruments,
)
from trading_api.modules.broker.service.desk import Books, Desk
from trading_api.modules.broker.service.risk import RiskGate, newest
from trading_api.runtime.database import Database, Lease, Leases, Transaction

log = structlog.get_logger("broker")

_PAGE = 500


class MarginService:
    """Watches every account that holds something, marked to the newest quotes."""

    def __init__(
        self,
        *,
        database: Database,
        books: Books,
        quotes: QuoteSource,
        instruments: InstrumentSource,
        venue: Venue,
        risk: RiskGate,
        leases: Leases,
    ) -> None:
        self._database = database
        self._books = books
        self._quotes = quotes
        self._instruments = instruments
        self._venue = venue
        self._risk = risk
        self._leases = leases

    async def watch(self, *, lease: Lease, now: datetime) -> int:
        """Warn, restore or stop out the accounts that are due; return how many changed.

        What a snapshot shows is advice; each account is decided under its lock, in a transaction
        of its own that checks the lease; one that fails stops no other. A repeat at the same
        quotes changes nothing.

        Raises:
            LeaseLostError: another instance watches now; nothing more was changed.
        """
        changed, after = 0, ""
        while True:
            async with self._database.snapshot() as snapshot:
                found = await self._books.repository.list_margined(
                    snapshot, after=after, limit=_PAGE
                )
            due = {each.account_id: each for each in found if self._is_due(each)}
            act = partial(self._act, due, lease, now)
            changed += await each_apart(list(due), act, work="margin")
            if len(found) < _PAGE:
                return changed
            after = found[-1].account_id

    def _is_due(self, margined: Margined) -> bool:
        worth = compute_valuation(
            cash_minor=margined.cash_minor,
            positions=margined.positions,
            quotes=newest(self._quotes.find, margined.positions),
        )
        return is_due(worth, is_called=margined.is_called)

    async def _act(
        self, due: Mapping[str, Margined], lease: Lease, now: datetime, account_id: str
    ) -> bool:
        instruments = await self._find_instruments(due[account_id])

        async def command(transaction: Transaction) -> bool:
            await self._leases.ensure_held(transaction, lease)
            desk = await Desk.open(self._books, transaction, account_id, now)
            assert desk is not None, "accounts are never deleted"
            before = desk.account
            worth = await self._risk.value(desk)
            called_at = before.margin_called_at
            if called_at is None and is_at_most(worth, MARGIN_CALL_PERCENT):
                await self._call(desk, worth)
            if is_at_most(worth, STOP_OUT_PERCENT):
                await self._stop_out(desk, worth, instruments)
                worth = await self._risk.value(desk)
            if desk.account.margin_called_at is not None and is_restored(worth):
                self._restore(desk, worth)
            if desk.account == before:
                return False
            await desk.close()
            return True

        return await self._database.group(command, key=account_id)

    async def _call(self, desk: Desk, worth: Valuation) -> None:
        account = desk.account
        desk.account = replace(account, margin_called_at=desk.now)
        numbers = _numbers(worth, account.currency)
        desk.record(
            Notice(
                account.account_id,
                NoticeCode.MARGIN_CALL,
                is_error=True,
                text=f"Equity is {numbers['level']} % of the margin of your positions; at "
                f"{STOP_OUT_PERCENT} % they are closed",
                numbers=numbers,
            )
        )
        await desk.publish(
            MarginCalled(
                account_id=account.account_id,
                user_id=account.user_id,
                offset=desk.account.event_sequence,
                currency=account.currency.code,
                equity=decimal_of(worth.equity_minor, account.currency.scale),
                margin=decimal_of(worth.margin_minor, account.currency.scale),
                level_percent=Decimal(numbers["level"]),
            )
        )
        desk.transaction.after_commit(
            partial(log.warning, "margin_called", account_id=account.account_id, **numbers)
        )

    async def _find_instruments(self, found: Margined) -> dict[str, Instrument]:
        try:
            return await find_instruments(
                self._instruments, [each.symbol for each in found.positions]
            )
        except MarketUnavailableError:
            # Calls are told all the same; what can't be known to be open isn't closed.
            return {}

    async def _stop_out(
        self, desk: Desk, worth: Valuation, instruments: Mapping[str, Instrument]
    ) -> None:
        """Cancel what could grow, then close the largest loss first until above the level.

        What has no fresh quote or doesn't trade now waits; where nothing can be done, nothing is
        told.
        """
        account, numbers = desk.account, _numbers(worth, desk.account.currency)
        live = await self._books.repository.list_live_orders(desk.transaction, account.account_id)
        canceled = await cancel_orders(
            desk, [each for each in live if not each.reduce_only], CloseReason.STOP_OUT
        )
        closed: list[str] = []
        while is_at_most(await self._risk.value(desk), STOP_OUT_PERCENT):
            fresh = self._fresh(desk, instruments)
            position = worst_of(desk.positions.values(), fresh)
            if position is None:
                break
            order = await close_position(
                desk, position, fresh[position.symbol], cause=CloseReason.STOP_OUT
            )
            closed.append(order.symbol)
        await desk.bear_loss()
        if not canceled and not closed:
            return
        desk.record(
            Notice(
                account.account_id,
                NoticeCode.STOP_OUT,
                is_error=True,
                text=f"Equity fell to {numbers['level']} % of margin: {len(canceled)} orders were "
                f"canceled, {len(closed)} positions closed",
                numbers={
                    **numbers,
                    "canceled": str(len(canceled)),
                    "closed": ", ".join(closed),
                },
            )
        )
        await desk.publish(
            StoppedOut(
                account_id=account.account_id,
                user_id=account.user_id,
                offset=desk.account.event_sequence,
                currency=account.currency.code,
                equity=decimal_of(worth.equity_minor, account.currency.scale),
                margin=decimal_of(worth.margin_minor, account.currency.scale),
                level_percent=Decimal(numbers["level"]),
                closed=closed,
            )
        )
        desk.transaction.after_commit(
            partial(
                log.warning,
                "stopped_out",
                account_id=account.account_id,
                closed=closed,
                **numbers,
            )
        )

    def _restore(self, desk: Desk, worth: Valuation) -> None:
        account = desk.account
        desk.account = replace(account, margin_called_at=None)
        desk.record(
            Notice(
                account.account_id,
                NoticeCode.MARGIN_RESTORED,
                is_error=False,
                text="The margin call is over",
                numbers=_numbers(worth, account.currency),
            )
        )

    def _fresh(self, desk: Desk, instruments: Mapping[str, Instrument]) -> dict[str, Quote]:
        """Return the quotes that positions can be closed on now."""
        found = newest(self._quotes.find, desk.positions.values())
        return {
            symbol: quote
            for symbol, quote in found.items()
            if quote.is_fresh(desk.now)
            and symbol in instruments
            and self._venue.is_open(instruments[symbol], desk.now)
        }


def _numbers(worth: Valuation, currency: Currency) -> dict[str, str]:
    level = compute_level(worth)
    return {
        "equity": f"{decimal_of(worth.equity_minor, currency.scale):f}",
        "margin": f"{decimal_of(worth.margin_minor, currency.scale):f}",
        "level": "" if level is None else f"{decimal_of(level, 2):f}",
        "currency": currency.code,
    }
