"""What an account shows: orders, executions, positions, worth and events, each read at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from trading_api.modules.broker.domain.account import Account, Valuation, compute_valuation
from trading_api.modules.broker.domain.event import AccountEvent
from trading_api.modules.broker.domain.execution import Execution
from trading_api.modules.broker.domain.instrument import Instrument, Policy, Quote
from trading_api.modules.broker.domain.order import Order, day_end
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.errors import (
    AccountNotFoundError,
    EventsGoneError,
    InstrumentNotFoundError,
    OrderNotFoundError,
)
from trading_api.modules.broker.ports import InstrumentSource, QuoteSource
from trading_api.modules.broker.repository.checks import (
    Violation,
    check_broker,
    check_ledger_of,
    check_trading,
)
from trading_api.modules.broker.service.accounts import AccountService
from trading_api.modules.broker.service.desk import Books
from trading_api.modules.broker.service.risk import newest
from trading_api.runtime.database import Database, Transaction

ORDERS_MAX = 1000


@dataclass(frozen=True, slots=True)
class AccountReport:
    """An account at one instant of its event sequence.

    Attributes:
        positions: what is held, by symbol; flat ones are left out.
        quotes: the marks, by symbol; a position without one stands at its last fill.
    """

    account: Account
    valuation: Valuation
    positions: tuple[Position, ...]
    quotes: Mapping[str, Quote]


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows of one kind with the point of the event sequence that they stand at."""

    account: Account
    orders: tuple[Order, ...] = ()
    executions: tuple[Execution, ...] = ()
    positions: tuple[Position, ...] = ()
    quotes: Mapping[str, Quote] | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """Whether the venue can trade for an account.

    Attributes:
        is_live: whether any instrument has a fresh quote.
    """

    account: Account
    is_live: bool


class ReportService:
    """Reads; nothing here changes an account, save that a user's first one is opened."""

    def __init__(
        self,
        *,
        database: Database,
        books: Books,
        accounts: AccountService,
        quotes: QuoteSource,
        instruments: InstrumentSource,
        policy: Policy,
    ) -> None:
        self._database = database
        self._books = books
        self._accounts = accounts
        self._quotes = quotes
        self._instruments = instruments
        self.policy = policy

    async def get_state(
        self, *, user_id: str, account_id: str | None, now: datetime
    ) -> AccountReport:
        """Return what an account is worth, marked to the newest quotes.

        Raises:
            AccountNotFoundError: not the user's account.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        await self._refresh_held(account_id)
        return await self.compute_state(account_id=account_id)

    async def compute_state(self, *, account_id: str) -> AccountReport:
        """Return what an account is worth at the quotes that are known, whoever asks."""
        async with self._database.snapshot() as snapshot:
            account = await self._get(snapshot, account_id)
            found = await self._books.repository.list_positions(snapshot, account_id)
            cash = await self._books.ledger.get_balance(snapshot, account.cash_account_id)
        quotes = newest(self._quotes.find, found)
        return AccountReport(
            account=account,
            valuation=compute_valuation(
                cash_minor=cash.total.minor,
                positions=found,
                quotes=quotes,
                held_minor=cash.held.minor,
            ),
            positions=tuple(each for each in found if not each.is_flat),
            quotes=quotes,
        )

    async def list_orders(
        self,
        *,
        user_id: str,
        account_id: str | None,
        client_order_id: str | None = None,
        now: datetime,
    ) -> Listing:
        """Return the open orders and those that closed this day, newest first, at most 1000.

        With a client order id: that order alone, however old.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        repository = self._books.repository
        async with self._database.snapshot() as snapshot:
            account = await self._get(snapshot, account_id)
            if client_order_id is not None:
                found = await repository.find_order_by_client_id(
                    snapshot, account_id, client_order_id
                )
                return Listing(account, orders=(found[0],) if found else ())
            orders = await repository.list_live_orders(snapshot, account_id)
            orders += await repository.list_closed_since(
                snapshot,
                account_id,
                # Around midnight a client still sees for a minute what has just closed.
                since=min(day_end(now) - timedelta(days=1), now - timedelta(minutes=1)),
                limit=ORDERS_MAX,
            )
        orders.sort(key=lambda order: order.order_id, reverse=True)
        return Listing(account, orders=tuple(orders[:ORDERS_MAX]))

    async def list_order_history(
        self,
        *,
        user_id: str,
        account_id: str | None,
        limit: int,
        before: str | None,
        symbol: str | None,
        now: datetime,
    ) -> list[Order]:
        """Return closed orders, newest first; ``before`` is the last order id of a page."""
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        async with self._database.snapshot() as snapshot:
            return await self._books.repository.list_closed(
                snapshot, account_id, limit=limit, before=before, symbol=symbol
            )

    async def get_order(
        self, *, user_id: str, account_id: str | None, order_id: str, now: datetime
    ) -> Order:
        """Return an order.

        Raises:
            OrderNotFoundError: not an order of this account.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        async with self._database.snapshot() as snapshot:
            found = await self._books.repository.find_order(snapshot, account_id, order_id)
        if found is None:
            raise OrderNotFoundError("there is no such order on this account")
        return found

    async def list_executions(
        self,
        *,
        user_id: str,
        account_id: str | None,
        limit: int,
        before: int | None = None,
        symbol: str | None = None,
        order_id: str | None = None,
        now: datetime,
    ) -> Listing:
        """Return executions, newest first; ``before`` is an execution's event number."""
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        async with self._database.snapshot() as snapshot:
            account = await self._get(snapshot, account_id)
            found = await self._books.repository.list_executions(
                snapshot,
                account_id,
                limit=limit,
                before=before,
                symbol=symbol,
                order_id=order_id,
            )
        return Listing(account, executions=tuple(found))

    async def list_positions(
        self, *, user_id: str, account_id: str | None, now: datetime
    ) -> Listing:
        """Return what is held, by symbol, with the quotes it is marked to."""
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        await self._refresh_held(account_id)
        async with self._database.snapshot() as snapshot:
            account = await self._get(snapshot, account_id)
            found = await self._books.repository.list_positions(snapshot, account_id)
        held = tuple(each for each in found if not each.is_flat)
        return Listing(account, positions=held, quotes=newest(self._quotes.find, held))

    async def list_events(
        self, *, user_id: str, account_id: str, since: int, limit: int, now: datetime
    ) -> tuple[Account, list[AccountEvent]]:
        """Return an account's events behind a number, oldest first, and the account as it is.

        Raises:
            EventsGoneError: some of them are older than what is kept.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        async with self._database.snapshot() as snapshot:
            account = await self._get(snapshot, account_id)
            found = await self._books.repository.list_events(
                snapshot, account_id, after=since, limit=limit
            )
        first = found[0].sequence if found else account.event_sequence + 1
        if first > since + 1:
            raise EventsGoneError(
                "events behind this number are kept no longer; read the account's state anew",
                oldest=first,
            )
        return account, found

    async def list_notices(
        self, *, user_id: str, account_id: str, limit: int, now: datetime
    ) -> tuple[Account, list[AccountEvent]]:
        """Return an account's newest notices, newest first, and the account as it is."""
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        async with self._database.snapshot() as snapshot:
            account = await self._get(snapshot, account_id)
            found = await self._books.repository.list_notices(snapshot, account_id, limit=limit)
        return account, found

    async def list_cash_changes(
        self, *, user_id: str, account_id: str, limit: int, now: datetime
    ) -> tuple[Account, list[AccountEvent]]:
        """Return an account's newest movements of cash, newest first, and the account as it is."""
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        async with self._database.snapshot() as snapshot:
            account = await self._get(snapshot, account_id)
            found = await self._books.repository.list_cash_changes(
                snapshot, account_id, limit=limit
            )
        return account, found

    async def get_connection(self, *, account_id: str) -> Connection:
        """Return whether the venue can trade for an account, whoever asks."""
        async with self._database.snapshot() as snapshot:
            account = await self._get(snapshot, account_id)
        return Connection(account, self._quotes.is_live)

    async def read_stream(self, *, account_id: str, after: int, limit: int) -> list[AccountEvent]:
        """Return events for the sockets' hub, which has checked who listens."""
        async with self._database.snapshot() as snapshot:
            return await self._books.repository.list_events(
                snapshot, account_id, after=after, limit=limit
            )

    async def get_instrument(self, *, symbol: str) -> tuple[Instrument, Quote | None]:
        """Return an instrument with its newest quote.

        Raises:
            InstrumentNotFoundError: the market has no such symbol.
            MarketUnavailableError: the market can't be asked.
        """
        found = await self._instruments.find(symbol)
        if found is None:
            raise InstrumentNotFoundError("there is no such instrument")
        await self._quotes.refresh([symbol])
        return found, self._quotes.find(symbol)

    async def refresh_all_held(self) -> None:
        """Ask for the quotes of everything that anybody holds or waits for; used at start."""
        async with self._database.snapshot() as snapshot:
            held = await self._books.repository.list_held_symbols(snapshot)
            waiting = await self._books.repository.list_symbols_with_open_orders(snapshot)
        await self._quotes.refresh({*held, *waiting})

    async def verify(self) -> list[Violation]:
        """Prove every account from its executions and postings; empty when all holds."""
        async with self._database.snapshot() as snapshot:
            return await check_broker(snapshot)

    async def verify_ledger(self) -> list[Violation]:
        """Prove every entry, balance, hold and hash chain of the accounts' cash."""
        async with self._database.snapshot() as snapshot:
            return await check_ledger_of(snapshot)

    async def verify_trading(self) -> list[Violation]:
        """Prove every order, execution, position and transfer against the ledger."""
        async with self._database.snapshot() as snapshot:
            return await check_trading(snapshot)

    async def _refresh_held(self, account_id: str) -> None:
        async with self._database.snapshot() as snapshot:
            held = await self._books.repository.list_held_symbols(snapshot, account_id)
        await self._quotes.refresh(held)

    async def _get(self, snapshot: Transaction, account_id: str) -> Account:
        account = await self._books.repository.find_account(snapshot, account_id)
        if account is None:
            raise AccountNotFoundError("there is no such trading account")
        return account
