"""What one transaction does to one account: under its lock, in one order, all of it or nothing.

The desk numbers the account's events and facts, writes executions with their postings, keeps the
reservations true, and wakes the account's stream after the commit.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from functools import partial

import structlog

from trading_api.contracts.broker import (
    ExecutionRecorded,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderModified,
    OrderRejected,
)
from trading_api.contracts.envelope import Event
from trading_api.kernel.ids import IdSource
from trading_api.kernel.values import Currency, Money, decimal_of
from trading_api.ledger.domain import (
    AccountState,
    AccountType,
    Balance,
    Book,
    Entry,
    EntryType,
    LedgerAccount,
    PostedEntry,
    Posting,
    credit,
    customer_account,
    debit,
    house_account,
)
from trading_api.ledger.engine import Decided, Ledger
from trading_api.modules.broker.domain.account import Account, PositionMode
from trading_api.modules.broker.domain.arithmetic import divide_half_even
from trading_api.modules.broker.domain.bracket import after_fill
from trading_api.modules.broker.domain.conversion import RATE_SCALE
from trading_api.modules.broker.domain.event import AccountEvent, CashChange, Subject
from trading_api.modules.broker.domain.execution import Execution
from trading_api.modules.broker.domain.instrument import COST_SCALE, Quote
from trading_api.modules.broker.domain.margin import compute_reservation
from trading_api.modules.broker.domain.matching import Liquidity
from trading_api.modules.broker.domain.order import Order, OrderStatus
from trading_api.modules.broker.domain.position import (
    FillEffect,
    Position,
    add_results,
    apply_fill,
)
from trading_api.modules.broker.repository import BrokerRepository
from trading_api.modules.broker.service.ahead import DeskAhead, FoundAccount
from trading_api.runtime.database import Outbox, Transaction

log = structlog.get_logger("broker")

Wake = Callable[[str, int], None]


FindQuote = Callable[[str], Quote | None]


def _no_quote(_symbol: str) -> Quote | None:
    return None


def stream_of(account_id: str) -> str:
    """Return the name of an account's event stream, as the WebSocket hub knows it."""
    return f"broker:{account_id}"


@dataclass(frozen=True, slots=True)
class HouseAccounts:
    """The ledger accounts that an account's money moves against."""

    cash: LedgerAccount
    external: LedgerAccount
    clearing: LedgerAccount
    pnl: LedgerAccount
    commission: LedgerAccount
    financing: LedgerAccount
    negative_balance: LedgerAccount

    @classmethod
    def of(cls, account_id: str, currency: Currency, book: Book) -> "HouseAccounts":
        """Return them for one trading account."""

        def house(name: str) -> LedgerAccount:
            return house_account(AccountType.HOUSE, currency, book=book, name=name)

        return cls(
            # Fills, financing and liquidation always post, so cash may go below zero.
            cash=customer_account(account_id, currency, book=book, allows_negative=True),
            external=house_account(AccountType.EXTERNAL, currency, book=book),
            clearing=house_account(AccountType.CLEARING, currency, book=book, name="wallet"),
            pnl=house("pnl"),
            commission=house("commission"),
            financing=house("financing"),
            negative_balance=house("negative_balance"),
        )

    def all(self) -> list[LedgerAccount]:
        """Return every one of them."""
        return [
            self.cash,
            self.external,
            self.clearing,
            self.pnl,
            self.commission,
            self.financing,
            self.negative_balance,
        ]


@dataclass(frozen=True, slots=True)
class Books:
    """What desks write with; one for the process.

    Attributes:
        wake: tells the hub of this process that a stream has news.
        find_quote: the newest quote of an instrument, for rates between currencies.
    """

    repository: BrokerRepository
    ledger: Ledger
    outbox: Outbox
    ids: IdSource
    wake: Wake
    find_quote: FindQuote = _no_quote


@dataclass(slots=True)
class Desk:
    """One locked account within one transaction; ``close`` writes what was gathered.

    Attributes:
        account: as it will be stored: its sequences have moved on.
        positions: by id: the instruments' own, flat ones too, and under hedging the open ones of
            single entries.
        orders: live orders by id, of the instruments that were loaded.
    """

    books: Books
    transaction: Transaction
    account: Account
    now: datetime
    positions: dict[str, Position] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    _loaded: set[str | None] = field(default_factory=set)
    _added: dict[str, str] = field(default_factory=dict)
    _changed: dict[str, Order] = field(default_factory=dict)
    _touched: set[str] = field(default_factory=set)
    _symbols: set[str] = field(default_factory=set)
    _events: list[AccountEvent] = field(default_factory=list)
    _executions: list[Execution] = field(default_factory=list)
    _house: HouseAccounts | None = None
    _cash_minor: int | None = None
    _cash: AccountState | None = None
    _cash_stored: AccountState | None = None
    _posted: list[PostedEntry] = field(default_factory=list)
    _stored: Account = field(init=False)

    def __post_init__(self) -> None:
        """Remember the account as it is stored."""
        self._stored = self.account

    @classmethod
    async def open(
        cls, books: Books, transaction: Transaction, account_id: str, now: datetime
    ) -> "Desk | None":
        """Lock an account; None where there is none."""
        ahead = transaction.ahead
        if isinstance(ahead, DeskAhead):
            found = ahead.take(account_id)
            if found is not None:
                return cls._of(books, transaction, found, now)
        account = await books.repository.lock_account(transaction, account_id)
        if account is None:
            return None
        return await cls.over(books, transaction, account, now)

    @classmethod
    async def over(
        cls, books: Books, transaction: Transaction, account: Account, now: datetime
    ) -> "Desk":
        """Return a desk over an account as it was read; only ``open`` may be written with."""
        found = await books.repository.list_positions(transaction, account.account_id)
        return cls(books, transaction, account, now, {each.position_id: each for each in found})

    @classmethod
    def _of(
        cls, books: Books, transaction: Transaction, found: FoundAccount, now: datetime
    ) -> "Desk":
        desk = cls(
            books,
            transaction,
            found.account,
            now,
            {each.position_id: each for each in found.positions},
            {each.order_id: each for each in found.orders},
        )
        desk._loaded.add(found.symbol)
        desk._cash = desk._cash_stored = found.cash
        return desk

    @property
    def house(self) -> HouseAccounts:
        """Return the ledger accounts of this account's postings."""
        if self._house is None:
            account = self.account
            self._house = HouseAccounts.of(account.account_id, account.currency, Book(account.book))
        return self._house

    @property
    def is_hedging(self) -> bool:
        """Tell whether every entry has a position of its own."""
        return self.account.position_mode is PositionMode.HEDGING

    async def load_balance(self) -> Balance:
        """Return the cash, and what transfers out hold of it."""
        if self._cash is not None:
            return self._cash.balance
        return await self.books.ledger.get_balance(self.transaction, self.account.cash_account_id)

    async def load_orders(self, symbol: str | None = None) -> None:
        """Read the live orders of an instrument, or of all of them; a repeat reads nothing."""
        if symbol in self._loaded or None in self._loaded:
            return
        found = await self.books.repository.list_live_orders(
            self.transaction, self.account.account_id, symbol=symbol
        )
        for order in found:
            # What this desk has changed already is newer.
            if order.order_id not in self._changed:
                self.orders[order.order_id] = order
        self._loaded.add(symbol)

    def list_orders(self, symbol: str) -> list[Order]:
        """Return the loaded live orders of an instrument, oldest first."""
        found = [each for each in self.orders.values() if each.symbol == symbol]
        return sorted(found, key=lambda each: each.order_id)

    def add(self, order: Order, *, ticket: str) -> None:
        """Take a new order with the canonical request it came from; written at ``close``."""
        self._added[order.order_id] = ticket
        self.change(order)

    def change(self, order: Order) -> None:
        """Take an order's new state; written at ``close``."""
        self._changed[order.order_id] = order
        if order.is_live:
            self.orders[order.order_id] = order
        else:
            self.orders.pop(order.order_id, None)
        self._symbols.add(order.symbol)

    def record(self, subject: Subject) -> int:
        """Append an event and return its number."""
        sequence = self.account.event_sequence + 1
        self.account = replace(self.account, event_sequence=sequence)
        self._events.append(AccountEvent(self.account.account_id, sequence, subject, self.now))
        if isinstance(subject, CashChange):
            self._cash_minor = subject.cash_minor
        return sequence

    async def publish(self, event: Event) -> None:
        """Add a fact to the outbox, in the account's order."""
        sequence = self.account.fact_sequence + 1
        self.account = replace(self.account, fact_sequence=sequence)
        await self.books.outbox.add(
            self.transaction,
            event,
            key=self.account.account_id,
            key_sequence=sequence,
            occurred_at=self.now,
        )

    async def tell_order(self, order: Order, *, is_modified: bool = False) -> None:
        """Take an order's new state, record it and publish it."""
        self.change(order)
        offset = self.record(order)
        fact = _order_fact(order, self.account, offset, is_modified=is_modified)
        if fact is not None:
            await self.publish(fact)
        self.transaction.after_commit(
            partial(
                log.info,
                "order_changed",
                account_id=order.account_id,
                order_id=order.order_id,
                status=order.status.value,
                filled_quantity=order.filled_quantity,
            )
        )

    def keep(self, position: Position) -> None:
        """Take a position's new state; written at ``close``."""
        self.positions[position.position_id] = position
        self._touched.add(position.position_id)

    def show_position(self, position: Position) -> None:
        """Take a position's new state and record it."""
        self.keep(position)
        self.record(position)

    async def fill(
        self,
        order: Order,
        *,
        quantity: int,
        price: int,
        liquidity: Liquidity,
        quote: Quote,
        slippage: int = 0,
    ) -> Order:
        """Fill an order and return it: execution, position, brackets, postings, events, facts.

        What else the fill does to the brackets of the position and of the order is done in the
        same breath: a filled leg cancels its sibling, a partial fill resizes it, an entry's legs
        become active.
        """
        assert order.symbol in self._loaded or None in self._loaded, "brackets are unknown"
        filled = order.fill(quantity, price, self.now).meet(quote)
        before = self._converted(self._position_of(order))
        assert before.symbol == order.symbol, "an order fills into its own instrument alone"
        position, effect = apply_fill(
            before, side=order.side, quantity=quantity, price=price, now=self.now
        )
        others = [
            each for each in self.list_orders(order.symbol) if each.order_id != order.order_id
        ]
        pair = after_fill(
            filled,
            before=before.signed_quantity,
            position=position,
            live=others,
            quote=quote,
            now=self.now,
        )
        position = replace(position, brackets=pair.brackets)
        self.keep(position)
        if position.own_id is not None:
            own = self.positions[order.symbol]
            self.keep(add_results(own, effect, price=price, now=self.now))
        execution = Execution(
            execution_id=self.books.ids.new("exe"),
            account_id=order.account_id,
            order_id=order.order_id,
            sequence=self.account.event_sequence + 1,
            symbol=order.symbol,
            side=order.side,
            price_scale=order.price_scale,
            quantity_scale=order.quantity_scale,
            quantity=quantity,
            price=price,
            slippage=slippage,
            position_id=position.position_id,
            closed_quantity=effect.closed_quantity,
            signed_quantity_after=position.signed_quantity,
            realized=effect.realized,
            realized_minor=effect.realized_minor,
            commission_minor=effect.commission_minor,
            currency=position.terms.currency.code,
            currency_scale=position.terms.currency.scale,
            liquidity=liquidity,
            quote_bid=quote.bid,
            quote_ask=quote.ask,
            quote_sequence=quote.sequence,
            quote_at=quote.at,
            executed_at=self.now,
            conversion=position.terms.conversion,
        )
        self.record(execution)
        await self.publish(_execution_fact(execution, filled, self.account))
        await self.tell_order(filled)
        self.record(position)
        for leg in pair.legs:
            await self.tell_order(leg, is_modified=self.orders[leg.order_id].status is leg.status)
        await self._post_fill(execution, effect, position)
        self._executions.append(execution)
        return filled

    async def post(
        self,
        entry_id: str,
        type_: EntryType,
        *,
        against: LedgerAccount,
        change_minor: int,
        reference: str | None,
        description: str,
    ) -> int:
        """Move cash by a signed amount against a house account; return the cash afterwards."""
        amount = Money(abs(change_minor), self.account.currency)
        cash = self.house.cash
        postings: tuple[Posting, Posting] = (
            (debit(against, amount), credit(cash, amount))
            if change_minor > 0
            else (debit(cash, amount), credit(against, amount))
        )
        posted = await self._decide(
            Entry(
                entry_id=entry_id,
                type=type_,
                postings=postings,
                occurred_at=self.now,
                reference=reference,
                description=description,
            )
        )
        cash_minor = posted.posting_on(cash.account_id).running_balance_minor
        assert cash_minor is not None, "cash is a customer account"
        self.record(
            CashChange(
                account_id=self.account.account_id,
                entry_id=entry_id,
                type=type_.value,
                change_minor=change_minor,
                cash_minor=cash_minor,
                currency=self.account.currency.code,
                currency_scale=self.account.currency.scale,
                reference=reference,
            )
        )
        return cash_minor

    async def _decide(self, entry: Entry) -> PostedEntry:
        """Decide an entry over the cash; ``close`` writes it with the others."""
        ledger, cash_id = self.books.ledger, self.account.cash_account_id
        if self._cash is None:
            locked = await ledger.lock_accounts(self.transaction, [cash_id])
            self._cash = self._cash_stored = locked[cash_id]
        posted = await ledger.decide_entry(
            self.transaction, entry, {cash_id: self._cash}, recorded_at=self.now
        )
        # An entry across currencies may leave the cash as it is.
        self._cash = posted.states.get(cash_id, self._cash)
        self._posted.append(posted)
        return posted

    def reserve(self, symbol: str) -> None:
        """Set what an instrument's open orders reserve; ``close`` does so for what was changed."""
        position = self.positions.get(symbol)
        if position is None:
            return
        open_orders = [each for each in self.list_orders(symbol) if each.is_open]
        reserved = compute_reservation(position, open_orders)
        if reserved != position.reserved_minor:
            self.keep(replace(position, reserved_minor=reserved))

    async def bear_loss(self) -> None:
        """Let the house bear what a flat account owes: nothing can earn it back.

        Only where this desk moved cash or filled something; ``close`` does it at last.
        """
        is_moved = self._cash_minor is not None or bool(self._executions)
        if not is_moved or any(not each.is_flat for each in self.positions.values()):
            return
        cash_minor = self._cash_minor
        if cash_minor is None:
            cash_minor = (await self.load_balance()).total.minor
        if cash_minor >= 0:
            return
        account = self.account
        await self.post(
            f"negative_{account.account_id}_{account.event_sequence + 1}",
            EntryType.ADJUSTMENT_ADMIN,
            against=self.house.negative_balance,
            change_minor=-cash_minor,
            reference=self._executions[-1].execution_id if self._executions else None,
            description="Negative balance borne by the house",
        )

    async def close(self) -> None:
        """Write orders, executions, positions, events and sequences; wake the stream after it.

        What has not changed is not written: a quote that does nothing to an account costs a read.
        """
        await self.bear_loss()
        repository, transaction = self.books.repository, self.transaction
        for symbol in sorted(
            self._symbols | {self.positions[each].symbol for each in self._touched}
        ):
            await self.load_orders(symbol)
            self.reserve(symbol)
        for order_id, order in self._changed.items():
            ticket = self._added.get(order_id)
            if ticket is None:
                await repository.save_order(transaction, order)
            else:
                await repository.add_order(transaction, order, ticket=ticket)
        for execution in self._executions:
            await repository.add_execution(transaction, execution)
        for position_id in sorted(self._touched):
            await repository.save_position(transaction, self.positions[position_id])
        if self._posted:
            assert self._cash_stored is not None, "entries are decided over it"
            decided = Decided(
                tuple(self._posted), {self.account.cash_account_id: self._cash_stored}
            )
            transaction.write_later(self.books.ledger.write_decided, decided)
            self._posted, self._cash_stored = [], self._cash
        await repository.add_events(transaction, self._events)
        if self.account != self._stored:
            await repository.save_account(transaction, self.account)
            self._stored = self.account
        if self._events:
            stream, sequence = stream_of(self.account.account_id), self.account.event_sequence
            transaction.after_commit(partial(self.books.wake, stream, sequence))

    def _position_of(self, order: Order) -> Position:
        known = self.positions.get(order.position_id)
        if known is not None:
            return known
        own = self.positions[order.symbol]
        return Position(
            account_id=order.account_id,
            terms=own.terms,
            updated_at=self.now,
            own_id=order.position_id,
        )

    def _converted(self, position: Position) -> Position:
        """Return a position at the newest rate, if it needs one."""
        conversion = position.terms.conversion
        if conversion is None:
            return position
        quote = self.books.find_quote(conversion.pair)
        return position if quote is None else position.at({conversion.pair: quote})

    async def _post_converted(
        self, execution: Execution, effect: FillEffect, position: Position
    ) -> None:
        """Post a result in another currency: there, across, and the spread.

        Profit of 100 EUR into USD: Dr house:pnl:EUR 100 / Cr fx:EUR 100, Dr fx:USD 110 / Cr cash
        110, Dr cash 0.10 / Cr house:fx_spread 0.10; a loss reversed. What rounds to nothing is
        not posted.
        """
        conversion = position.terms.conversion
        assert conversion is not None, "else nothing is converted"
        account, book = self.account.currency, Book(self.account.book)
        theirs = conversion.quote_currency
        pnl = house_account(AccountType.HOUSE, theirs, book=book, name="pnl")
        fx_theirs = house_account(AccountType.FX, theirs, book=book)
        fx_ours = house_account(AccountType.FX, account, book=book)
        spread_account = house_account(AccountType.HOUSE, account, book=book, name="fx_spread")
        await self.books.ledger.open_accounts(
            self.transaction, [pnl, fx_theirs, fx_ours, spread_account], created_at=self.now
        )
        result = divide_half_even(effect.realized, int(10 ** (COST_SCALE - theirs.scale)))
        gross = position.terms.to_minor_middle(effect.realized)
        spread = gross - effect.realized_minor
        assert spread >= 0, "the house never pays the spread"
        cash = self.house.cash
        postings = [
            *_move(pnl, fx_theirs, result, theirs),
            *_move(fx_ours, cash, gross, account),
            *_move(cash, spread_account, spread, account),
        ]
        if not postings:
            return
        reference = execution.execution_id
        entry_id = f"pnl_{reference}"
        posted = await self._decide(
            Entry(
                entry_id=entry_id,
                type=EntryType.REALIZED_PNL,
                postings=tuple(postings),
                occurred_at=self.now,
                reference=reference,
                description=f"Result of {execution.symbol}",
                details={
                    "pair": conversion.pair,
                    "bid": str(decimal_of(conversion.bid, RATE_SCALE)),
                    "ask": str(decimal_of(conversion.ask, RATE_SCALE)),
                },
            )
        )
        if not effect.realized_minor:
            return
        self.record(
            CashChange(
                account_id=self.account.account_id,
                entry_id=entry_id,
                type=EntryType.REALIZED_PNL.value,
                change_minor=effect.realized_minor,
                cash_minor=posted.states[cash.account_id].balance_minor,
                currency=account.code,
                currency_scale=account.scale,
                reference=reference,
            )
        )

    async def _post_fill(
        self, execution: Execution, effect: FillEffect, position: Position
    ) -> None:
        house, reference = self.house, execution.execution_id
        if position.terms.conversion is not None and effect.realized:
            await self._post_converted(execution, effect, position)
        elif effect.realized_minor:
            await self.post(
                f"pnl_{reference}",
                EntryType.REALIZED_PNL,
                against=house.pnl,
                change_minor=effect.realized_minor,
                reference=reference,
                description=f"Result of {execution.symbol}",
            )
        if effect.commission_minor:
            await self.post(
                f"commission_{reference}",
                EntryType.FEE_COMMISSION,
                against=house.commission,
                change_minor=-effect.commission_minor,
                reference=reference,
                description=f"Commission on {execution.symbol}",
            )


def _move(from_: LedgerAccount, to: LedgerAccount, minor: int, currency: Currency) -> list[Posting]:
    """Return the postings that move a signed amount; none for nothing."""
    if minor == 0:
        return []
    source, target = (from_, to) if minor > 0 else (to, from_)
    amount = Money(abs(minor), currency)
    return [debit(source, amount), credit(target, amount)]


def _execution_fact(execution: Execution, order: Order, account: Account) -> ExecutionRecorded:
    price_scale, quantity_scale = execution.price_scale, execution.quantity_scale
    return ExecutionRecorded(
        execution_id=execution.execution_id,
        order_id=execution.order_id,
        client_order_id=order.client_order_id,
        account_id=account.account_id,
        user_id=account.user_id,
        offset=execution.sequence,
        symbol=execution.symbol,
        side=execution.side.value,
        quantity=decimal_of(execution.quantity, quantity_scale),
        price=decimal_of(execution.price, price_scale),
        closed_quantity=decimal_of(execution.closed_quantity, quantity_scale),
        position_id=execution.position_id,
        signed_quantity_after=decimal_of(execution.signed_quantity_after, quantity_scale),
        realized=decimal_of(execution.realized_minor, execution.currency_scale),
        commission=decimal_of(execution.commission_minor, execution.currency_scale),
        currency=execution.currency,
        liquidity=execution.liquidity.value,
        quote_bid=decimal_of(execution.quote_bid, price_scale),
        quote_ask=decimal_of(execution.quote_ask, price_scale),
        quote_sequence=execution.quote_sequence,
        executed_at=execution.executed_at,
    )


def _order_fact(order: Order, account: Account, offset: int, *, is_modified: bool) -> Event | None:
    reason = order.close_reason.value if order.close_reason else ""
    common = {
        "order_id": order.order_id,
        "account_id": account.account_id,
        "user_id": account.user_id,
        "offset": offset,
        "client_order_id": order.client_order_id,
        "symbol": order.symbol,
        "side": order.side.value,
        "type": order.type.value,
        "time_in_force": order.time_in_force.value,
        "quantity": decimal_of(order.quantity, order.quantity_scale),
        "filled_quantity": decimal_of(order.filled_quantity, order.quantity_scale),
        "limit_price": _decimal(order.limit_price, order.price_scale),
        "trigger_price": _decimal(order.trigger_price, order.price_scale),
        "reduce_only": order.reduce_only,
        "position_id": order.position_id,
        "parent_id": order.parent_id,
        "parent_type": order.parent_type.value if order.parent_type else None,
        "bracket_role": order.role.value if order.role else None,
        "take_profit": _decimal(order.brackets.take_profit, order.price_scale),
        "stop_loss": _decimal(order.brackets.stop_loss, order.price_scale),
    }
    if is_modified:
        return OrderModified.model_validate(common)
    match order.status:
        case OrderStatus.ACCEPTED:
            return OrderAccepted.model_validate(common)
        case OrderStatus.FILLED:
            average = decimal_of(order.average_fill_price(), COST_SCALE)
            return OrderFilled.model_validate({**common, "average_fill_price": average})
        case OrderStatus.CANCELED:
            return OrderCanceled.model_validate({**common, "reason": reason})
        case OrderStatus.EXPIRED:
            return OrderExpired.model_validate(common)
        case OrderStatus.REJECTED:
            return OrderRejected.model_validate({**common, "reason": reason})
        case _:
            # Triggers and partial fills show in the account's events and in executions.
            return None


def _decimal(raw: int | None, scale: int) -> Decimal | None:
    return None if raw is None else decimal_of(raw, scale)
