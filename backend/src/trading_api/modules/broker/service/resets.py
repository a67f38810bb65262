"""Beginning a paper account anew: orders canceled, positions closed, cash as at the start."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from trading_api.contracts.broker import AccountReset
from trading_api.kernel.values import decimal_of
from trading_api.ledger.domain import Book, EntryType
from trading_api.modules.broker.domain.account import Account
from trading_api.modules.broker.domain.event import Notice, NoticeCode
from trading_api.modules.broker.domain.instrument import Instrument, Quote
from trading_api.modules.broker.domain.order import CloseReason
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.domain.risk import ensure_may_trade
from trading_api.modules.broker.errors import (
    AccountNotFoundError,
    AccountNotResettableError,
    MarketClosedError,
    StaleQuoteError,
)
from trading_api.modules.broker.ports import InstrumentSource, QuoteSource, Venue
from trading_api.modules.broker.service.accounts import AccountService
from trading_api.modules.broker.service.closing import (
    cancel_orders,
    close_position,
    find_instruments,
)
from trading_api.modules.broker.service.desk import Books, Desk, stream_of
from trading_api.modules.broker.service.keyed import Keyed
from trading_api.modules.broker.service.starts import add_start
from trading_api.runtime.database import Database, Idempotency, Transaction


class ResetService:
    """Resets paper accounts; what happened before stays in their history.

    Args:
        renew: tells the sockets' hub that a stream began anew.
    """

    def __init__(
        self,
        *,
        database: Database,
        books: Books,
        accounts: AccountService,
        idempotency: Idempotency,
        quotes: QuoteSource,
        instruments: InstrumentSource,
        venue: Venue,
        renew: Callable[[str], None],
    ) -> None:
        self._database = database
        self._books = books
        self._accounts = accounts
        self._idempotency = idempotency
        self._quotes = quotes
        self._instruments = instruments
        self._venue = venue
        self._renew = renew

    async def reset_account(
        self, *, user_id: str, account_id: str, idempotency_key: str | None, now: datetime
    ) -> tuple[Account, bool]:
        """Cancel every order, close every position, and set the cash to its starting amount.

        One transaction. The event numbers go on; the epoch is new, so that every listener takes a
        fresh snapshot.

        Returns:
            The account, and whether an earlier request with this key had done it.

        Raises:
            AccountNotFoundError: not the user's account.
            AccountNotResettableError: the account is funded.
            TradingHaltedError: a kill switch lets nothing fill.
            MarketClosedError: something is held that doesn't trade now.
            StaleQuoteError: something is held that has no fresh quote to close on.
            MarketUnavailableError: when the instruments trade isn't known.
        """
        await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        async with self._database.snapshot() as snapshot:
            held = await self._books.repository.list_held_symbols(snapshot, account_id)
        await self._quotes.refresh(held)
        instruments = await find_instruments(self._instruments, held)
        keyed = Keyed(
            self._idempotency,
            user_id,
            "POST /accounts/reset",
            idempotency_key,
            {"accountId": account_id},
        )

        async def command(transaction: Transaction) -> tuple[Account, bool]:
            if await keyed.begin(transaction) is not None:
                found = await self._books.repository.find_account(transaction, account_id)
                assert found is not None, "accounts are never deleted"
                return found, True
            desk = await Desk.open(self._books, transaction, account_id, now)
            if desk is None:
                raise AccountNotFoundError("there is no such trading account")
            await self._reset(desk, instruments)
            await keyed.finish(transaction, {"account_id": account_id})
            return desk.account, False

        return await self._database.group(command, key=account_id)

    async def _reset(self, desk: Desk, instruments: Mapping[str, Instrument]) -> None:
        books, account = self._books, desk.account
        if account.book != Book.DEMO.value:
            raise AccountNotResettableError("only paper accounts of the demo book can be reset")
        ensure_may_trade(account, closes=True)
        live = await books.repository.list_live_orders(desk.transaction, account.account_id)
        await cancel_orders(desk, live, CloseReason.RESET)
        for position in sorted(desk.positions.values(), key=lambda each: each.symbol):
            if position.is_flat:
                continue
            quote = self._get_quote(desk, position, instruments)
            await close_position(desk, position, quote, cause=CloseReason.RESET)
        await desk.bear_loss()
        epoch = books.ids.new("epo")
        change = account.starting_cash_minor - (await desk.load_balance()).total.minor
        if change:
            await desk.post(
                f"reset_{epoch}",
                EntryType.ADJUSTMENT_ADMIN,
                against=desk.house.external,
                change_minor=change,
                reference=epoch,
                description="Reset to the starting cash",
            )
        scale = account.currency.scale
        starting = decimal_of(account.starting_cash_minor, scale)
        desk.account = replace(
            desk.account,
            epoch=epoch,
            # Behind what closed it, which belongs to the time before.
            begun_at=desk.now + timedelta(microseconds=1),
            margin_called_at=None,
        )
        desk.record(
            Notice(
                account.account_id,
                NoticeCode.RESET,
                is_error=False,
                text=f"The account begins anew with {starting:f} {account.currency.code}",
                numbers={
                    "startingCash": f"{starting:f}",
                    "adjustment": f"{decimal_of(change, scale):f}",
                },
            )
        )
        await desk.publish(
            AccountReset(
                account_id=account.account_id,
                user_id=account.user_id,
                offset=desk.account.event_sequence,
                epoch=epoch,
                currency=account.currency.code,
                starting_cash=starting,
            )
        )
        await desk.close()
        await add_start(desk, account.starting_cash_minor)
        desk.transaction.after_commit(partial(self._renew, stream_of(account.account_id)))

    def _get_quote(
        self, desk: Desk, position: Position, instruments: Mapping[str, Instrument]
    ) -> Quote:
        quote, instrument = self._quotes.find(position.symbol), instruments.get(position.symbol)
        # What is held only since the instruments were looked up is there at the next try.
        if quote is None or instrument is None or not quote.is_fresh(desk.now):
            raise StaleQuoteError(
                f"{position.symbol} is held and has no fresh quote to close on",
                retry_after_seconds=1,
                symbol=position.symbol,
            )
        if not self._venue.is_open(instrument, desk.now):
            raise MarketClosedError(
                f"{position.symbol} is held and doesn't trade now", symbol=position.symbol
            )
        return quote
