"""The market as an account sees it: instruments with its leverage, quotes."""

from collections.abc import Sequence
from datetime import datetime

from trading_api.modules.broker.domain.instrument import Instrument, Policy, Quote
from trading_api.modules.broker.ports import InstrumentSource, MarketHistory, QuoteSource
from trading_api.modules.broker.service.accounts import AccountService
from trading_api.modules.broker.service.desk import Books
from trading_api.runtime.database import Database


class MarketService:
    """Reads of the market; nothing here changes anything."""

    def __init__(
        self,
        *,
        database: Database,
        books: Books,
        accounts: AccountService,
        quotes: QuoteSource,
        instruments: InstrumentSource,
        history: MarketHistory,
        policy: Policy,
    ) -> None:
        self._database = database
        self._books = books
        self._accounts = accounts
        self._quotes = quotes
        self._instruments = instruments
        self._history = history
        self.policy = policy

    async def list_instruments(self) -> list[Instrument]:
        """Return what can be traded, by symbol.

        Raises:
            MarketUnavailableError: the market can't be asked.
        """
        return [
            each
            for each in await self._instruments.list_tradable()
            if each.kind in self.policy.leverage_by_kind
        ]

    async def list_for_account(
        self, *, user_id: str, account_id: str, now: datetime
    ) -> list[tuple[Instrument, int]]:
        """Return what an account can trade, by symbol, each with the leverage in force.

        Raises:
            AccountNotFoundError: not the user's account.
            MarketUnavailableError: the market can't be asked.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        async with self._database.snapshot() as snapshot:
            account = await self._books.repository.find_account(snapshot, account_id)
        assert account is not None, "accounts are never deleted"
        return [
            (each, self.policy.leverage_of(each, account.leverages))
            for each in await self.list_instruments()
        ]

    async def list_quotes(
        self, *, user_id: str, account_id: str, symbols: Sequence[str], now: datetime
    ) -> list[tuple[str, Instrument | None, Quote | None]]:
        """Return the newest quotes in the order asked for; None what isn't there.

        Raises:
            AccountNotFoundError: not the user's account.
            MarketUnavailableError: the market can't be asked.
        """
        await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        known = {each.symbol: each for each in await self.list_instruments()}
        await self._quotes.refresh([each for each in symbols if each in known])
        return [
            (each, known.get(each), self._quotes.find(each) if each in known else None)
            for each in symbols
        ]

    async def read_history(
        self, *, symbol: str, resolution: str, from_: int, to: int, credential: str | None
    ) -> dict[str, list[float]]:
        """Return bars as columns; both ends belong to the window, seconds since 1970 UTC.

        Raises:
            InvalidInputError: an unknown symbol or resolution.
            UnavailableError: the market can't be asked.
        """
        return await self._history.read(
            symbol=symbol, resolution=resolution, from_=from_, to=to, credential=credential
        )
