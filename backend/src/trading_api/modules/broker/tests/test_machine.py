"""Random trading against an independent model, with crashes, repeats, jumps and a second instance.

Every step is done to the broker and to ``reference``; then every order, position and cent must be
the same. A crash breaks the next request's transaction at some step and starts the services anew;
the client then repeats the request, as it would. What fails is shrunk to a few steps.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trading_api.kernel.errors import TradingError
from trading_api.kernel.ids import UuidV7Ids
from trading_api.modules.broker import tables
from trading_api.modules.broker.domain.account import PositionMode
from trading_api.modules.broker.domain.order import Order, OrderSide, TimeInForce
from trading_api.modules.broker.repository import rows
from trading_api.modules.broker.service.orders import OrderChange
from trading_api.modules.broker.tests.builders import (
    AAPL,
    FakeMarket,
    a_ticket,
    brackets_ticket,
    pips,
)
from trading_api.modules.broker.tests.conftest import Venue, build_venue
from trading_api.modules.broker.tests.reference import Book, Ref, RefusedError, day_end
from trading_api.modules.broker.tests.test_crash import STEPS, BreakingRepository
from trading_api.runtime.database import Database
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.migrated import migrate

T = TypeVar("T")

USERS = ("usr_one", "usr_two")
sides = st.sampled_from([1, -1])
quantities = st.integers(1, 30)
offsets = st.integers(1, 400)
maybe_offset = st.none() | offsets
who = st.integers(0, 1)
which = st.integers(0, 9)


@dataclass
class Trader:
    """One user's account in the broker and in the model."""

    user_id: str
    account_id: str
    book: Book
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


class Machine(RuleBasedStateMachine):
    """Two users at two instances of a broker over one database."""

    hedging: ClassVar[bool] = False
    template: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        file = self.folder / "module.db"
        shutil.copy(self.template, file)
        url = f"sqlite+aiosqlite:///{file}"
        self.databases = [Database(url, schema="broker") for _ in range(2)]
        self.clock = FixedClock()
        self.market = FakeMarket(self.clock.now)
        self.ids = UuidV7Ids()
        self.bid, self.spread, self.steps = 20_000, 10, 0
        self.matched = -1
        self.repository = BreakingRepository()
        self.quote()
        self.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def start(self) -> None:
        """Build the services of both instances, as two processes do at their start."""
        self.repository.breaks_at = None
        self.venues = [
            build_venue(database, self.clock, self.market, ids=self.ids, repository=self.repository)
            for database in self.databases
        ]

    def quote(self) -> Any:
        bid, ask = self.prices()
        return self.market.quote(str(Decimal(bid).scaleb(-2)), str(Decimal(ask).scaleb(-2)))

    def prices(self) -> tuple[int, int]:
        return self.bid, self.bid + self.spread

    @property
    def number(self) -> int:
        return self.market.quotes[AAPL].sequence

    @property
    def venue(self) -> Venue:
        """Either instance, turn by turn."""
        self.steps += 1
        return self.venues[self.steps % 2]

    @initialize()
    def open_accounts(self) -> None:
        async def open_one(user_id: str) -> str:
            venue = self.venues[0]
            if not self.hedging:
                state = await venue.reports.get_state(
                    user_id=user_id, account_id=None, now=self.clock.now()
                )
                return state.account.account_id
            account, _ = await venue.accounts.open_account(
                user_id=user_id,
                name=None,
                position_mode=PositionMode.HEDGING,
                idempotency_key=None,
                now=self.clock.now(),
            )
            return account.account_id

        self.traders = [
            Trader(user_id, self.run(open_one(user_id)), Book(self.hedging)) for user_id in USERS
        ]

    def ask(self, request: Any) -> bool:
        """Make a request, once more where it crashed; tell whether it was accepted."""
        self.clock.advance(0.3)
        self.quote()
        for _ in range(2):
            try:
                self.run(request(self.venue))
            except RuntimeError:
                self.start()
                assert self.run(self.venues[0].matching.reconcile(now=self.clock.now())) == 0
            except TradingError:
                return False
            else:
                return True
        raise AssertionError("it crashes once")

    @contextmanager
    def refusing(self, is_accepted: bool) -> Iterator[None]:
        try:
            yield
        except RefusedError:
            assert not is_accepted, "the model refuses it"
        else:
            assert is_accepted, "the model accepts it"

    def refs(self, trader: Trader) -> list[Ref]:
        return [each for each in trader.book.orders if each.role is None]

    @rule(
        user=who,
        side=sides,
        quantity=quantities,
        limit=st.none() | st.integers(-300, 300),
        stop=maybe_offset,
        trail=st.none() | st.integers(20, 300),
        kind=st.sampled_from(["GTC", "GTC", "DAY", "IOC", "FOK"]),
        profit=maybe_offset,
        loss=maybe_offset,
        trail_stop=st.none() | st.none() | st.integers(20, 300),
        repeats=st.booleans(),
    )
    def place(
        self,
        user: int,
        side: int,
        quantity: int,
        limit: int | None,
        stop: int | None,
        trail: int | None,
        kind: str,
        profit: int | None,
        loss: int | None,
        trail_stop: int | None,
        repeats: bool,
    ) -> None:
        trader = self.traders[user]
        bid, ask = self.prices()
        touch = ask if side > 0 else bid
        if trail is not None:
            limit, stop = None, None
        limit_price = None if limit is None else touch + limit
        trigger = None if stop is None else touch + side * stop
        entry = limit_price or trigger
        if trail is not None:
            entry = trigger = touch + side * trail
        above, below = (entry or ask), (entry or bid)
        high, low = (profit, loss) if side > 0 else (loss, profit)
        if trail_stop is not None:
            loss = None
            high, low = (profit, None) if side > 0 else (None, profit)
        prices = {
            "high": None if high is None else above + high,
            "low": None if low is None else below - low,
        }
        profit_price, loss_price = (
            (prices["high"], prices["low"]) if side > 0 else (prices["low"], prices["high"])
        )
        client_order_id = f"c{self.steps}-{len(trader.asked)}"
        ticket: dict[str, Any] = {
            "quantity": quantity,
            "side": OrderSide.BUY if side > 0 else OrderSide.SELL,
            "limit": _text(limit_price),
            "stop": None if trail is not None else _text(trigger),
            "trail": None if trail is None else pips(trail),
            "time_in_force": TimeInForce(kind),
            "take_profit": _text(profit_price),
            "stop_loss": _text(loss_price),
            "trailing_stop": None if trail_stop is None else pips(trail_stop),
        }
        trader.asked.append((client_order_id, ticket))
        self.send(trader, client_order_id, ticket, expect=True)
        order = Ref(
            side,
            quantity,
            AAPL if not self.hedging else len(trader.book.orders),
            limit=limit_price,
            trigger=trigger,
            trails=trail,
            at_once=kind in ("IOC", "FOK"),
            ends=day_end(self.clock.now()) if kind == "DAY" else None,
            profit=profit_price,
            stop=loss_price,
            trail_stop=trail_stop,
        )
        trader.book.place(order, bid, ask, self.number)
        if repeats:
            self.send(trader, client_order_id, ticket, expect=True)

    def send(
        self, trader: Trader, client_order_id: str, ticket: dict[str, Any], *, expect: bool
    ) -> None:
        async def request(venue: Venue) -> None:
            await venue.place(
                a_ticket(**ticket),
                client_order_id=client_order_id,
                account_id=trader.account_id,
                user_id=trader.user_id,
            )

        assert self.ask(request) is expect

    @rule(user=who, index=which)
    def repeat_an_old_request(self, user: int, index: int) -> None:
        trader = self.traders[user]
        if trader.asked:
            self.send(trader, *trader.asked[index % len(trader.asked)], expect=True)

    @rule(user=who, index=which, whole=st.booleans())
    def close(self, user: int, index: int, whole: bool) -> None:
        trader = self.traders[user]
        keys = trader.book.open_positions()
        if not keys:
            return
        key = keys[index % len(keys)]
        held = trader.book.holding(key).quantity
        quantity = abs(held) if whole else max(1, abs(held) // 2)

        async def request(venue: Venue) -> None:
            await venue.positions.close_position(
                user_id=trader.user_id,
                account_id=trader.account_id,
                position_id=await self.position_id(trader, key),
                quantity=Decimal(quantity),
                idempotency_key=None,
                now=venue.now,
            )

        accepted = self.ask(request)
        with self.refusing(accepted):
            order = Ref(-1 if held > 0 else 1, quantity, key, reduces=True)
            trader.book.place(order, *self.prices(), self.number)

    @rule(user=who, side=sides, quantity=quantities, offset=offsets)
    @precondition(lambda self: not self.hedging)
    def place_reduce_only(self, user: int, side: int, quantity: int, offset: int) -> None:
        trader = self.traders[user]
        bid, ask = self.prices()
        limit = ask + offset if side < 0 else bid - offset

        async def request(venue: Venue) -> None:
            await venue.place(
                a_ticket(
                    quantity,
                    side=OrderSide.BUY if side > 0 else OrderSide.SELL,
                    limit=_text(limit),
                    reduce_only=True,
                ),
                account_id=trader.account_id,
                user_id=trader.user_id,
            )

        accepted = self.ask(request)
        with self.refusing(accepted):
            order = Ref(side, quantity, AAPL, limit=limit, reduces=True)
            trader.book.place(order, bid, ask, self.number)

    @rule(user=who, index=which)
    def reverse(self, user: int, index: int) -> None:
        trader = self.traders[user]
        keys = trader.book.open_positions()
        if not keys:
            return
        key = keys[index % len(keys)]
        held = trader.book.holding(key).quantity

        async def request(venue: Venue) -> None:
            await venue.positions.reverse_position(
                user_id=trader.user_id,
                account_id=trader.account_id,
                position_id=await self.position_id(trader, key),
                idempotency_key=None,
                now=venue.now,
            )

        assert self.ask(request)
        side, size = (-1 if held > 0 else 1), abs(held)
        if not self.hedging:
            trader.book.place(Ref(side, 2 * size, key), *self.prices(), self.number)
            return
        trader.book.place(Ref(side, size, key, reduces=True), *self.prices(), self.number)
        opened = Ref(side, size, len(trader.book.orders))
        trader.book.place(opened, *self.prices(), self.number)

    @rule(user=who, index=which, profit=maybe_offset, loss=maybe_offset, trails=st.booleans())
    def protect(
        self, user: int, index: int, profit: int | None, loss: int | None, trails: bool
    ) -> None:
        trader = self.traders[user]
        keys = trader.book.open_positions()
        if not keys:
            return
        key = keys[index % len(keys)]
        bid, ask = self.prices()
        is_long = trader.book.holding(key).quantity > 0
        touch = bid if is_long else ask
        sign = 1 if is_long else -1
        profit_price = None if profit is None else touch + sign * profit
        trail = loss if trails else None
        loss_price = None if loss is None or trails else touch - sign * loss
        wanted = brackets_ticket(
            _text(profit_price), _text(loss_price), None if trail is None else pips(trail)
        )

        async def request(venue: Venue) -> None:
            await venue.positions.set_brackets(
                user_id=trader.user_id,
                account_id=trader.account_id,
                position_id=await self.position_id(trader, key),
                wanted=wanted,
                now=venue.now,
            )

        assert self.ask(request)
        trader.book.protect(key, profit_price, loss_price, trail, bid, ask, self.number)

    @rule(user=who, index=which, legs=st.booleans())
    def cancel(self, user: int, index: int, legs: bool) -> None:
        trader = self.traders[user]
        refs = trader.book.orders if legs else self.refs(trader)
        if not refs:
            return
        ref = refs[index % len(refs)]

        async def request(venue: Venue) -> None:
            await venue.orders.cancel_order(
                user_id=trader.user_id,
                account_id=trader.account_id,
                order_id=(await self.stored(trader))[_place(trader, ref)].order_id,
                now=venue.now,
            )

        accepted = self.ask(request)
        with self.refusing(accepted):
            trader.book.cancel(ref)

    @rule(user=who, index=which, quantity=quantities)
    def modify(self, user: int, index: int, quantity: int) -> None:
        trader = self.traders[user]
        refs = [each for each in self.refs(trader) if not each.reduces]
        if not refs:
            return
        ref = refs[index % len(refs)]

        async def request(venue: Venue) -> None:
            await venue.orders.modify_order(
                user_id=trader.user_id,
                account_id=trader.account_id,
                order_id=(await self.stored(trader))[_place(trader, ref)].order_id,
                change=OrderChange(quantity=Decimal(quantity)),
                now=venue.now,
            )

        accepted = self.ask(request)
        with self.refusing(accepted):
            trader.book.modify(ref, quantity, self.number)

    @rule(move=st.integers(-250, 250), spread=st.integers(0, 40))
    def tick(self, move: int, spread: int) -> None:
        self.bid, self.spread = max(15_000, min(25_000, self.bid + move)), spread
        self.clock.advance(0.3)
        quote = self.quote()

        async def request(venue: Venue) -> None:
            lease = await venue.lease()
            await venue.matching.expire(lease=lease, now=venue.now)
            await venue.matching.on_quote(quote=quote, lease=lease, now=venue.now)

        for _ in range(3):
            broken = self.repository.count
            self.run(request(self.venue))
            if self.repository.count == broken:
                break
            # Some accounts have met the quote and some haven't: it is brought once more.
            self.start()
            assert self.run(self.venues[0].matching.reconcile(now=self.clock.now())) == 0
        self.matched = quote.sequence
        for trader in self.traders:
            trader.book.expire(self.clock.now())
            trader.book.tick(*self.prices(), quote.sequence)

    @rule()
    def redeliver(self) -> None:
        """The newest quote comes again, to the other instance, and changes nothing."""
        quote = self.market.quotes[AAPL]
        venue = self.venue

        async def request() -> None:
            await venue.matching.on_quote(quote=quote, lease=await venue.lease(), now=venue.now)

        before = self.run(self.dump())
        self.repository.breaks_at = None
        # A quote that only requests have seen was never matched, so it isn't repeated either.
        if self.matched == quote.sequence:
            self.run(request())
            assert self.run(self.dump()) == before

    @rule(step=st.sampled_from(STEPS))
    def crash(self, step: str) -> None:
        """Break the next transaction at a step; where it doesn't get there, nothing breaks."""
        self.repository.breaks_at = step

    @rule(seconds=st.sampled_from([-7200, -90, 90, 7200, 86_400]))
    def jump(self, seconds: int) -> None:
        """The wall clock is set; a quote of before may now be stale or from the future."""
        self.clock.jump(seconds)

    async def stored(self, trader: Trader) -> list[Order]:
        """The account's orders as they are stored, in the order they were made."""
        async with self.databases[0].snapshot() as snapshot:
            found = await snapshot.all(
                sa.select(tables.orders)
                .where(tables.orders.c.account_id == trader.account_id)
                .order_by(tables.orders.c.order_id)
            )
        return [rows.order_of(row._mapping) for row in found]

    async def position_id(self, trader: Trader, key: object) -> str:
        if not self.hedging:
            return AAPL
        assert isinstance(key, int)
        return (await self.stored(trader))[key].position_id

    async def dump(self) -> list[Any]:
        async with self.databases[0].snapshot() as snapshot:
            return [
                [tuple(row) for row in await snapshot.all(sa.select(table))]
                for table in (tables.orders, tables.positions, tables.account_events)
            ]

    @invariant()
    def same_as_the_model(self) -> None:
        for trader in getattr(self, "traders", ()):
            stored = self.run(self.stored(trader))
            shown = [
                (
                    each.side.sign,
                    each.quantity,
                    each.filled_quantity,
                    each.status.value,
                    each.limit_price,
                    each.trigger_price,
                    each.role and each.role.value,
                )
                for each in stored
            ]
            expected = [
                (
                    each.side,
                    each.quantity,
                    each.filled,
                    each.state,
                    each.limit,
                    each.trigger,
                    each.role,
                )
                for each in trader.book.orders
            ]
            assert shown == expected
            state = self.run(self.venues[0].reports.compute_state(account_id=trader.account_id))
            assert state.valuation.cash_minor == trader.book.cash
            held = sorted((each.signed_quantity, each.cost * 100) for each in state.positions)
            assert held == sorted(
                (each.quantity, each.cost * 10**10)
                for each in trader.book.held.values()
                if each.quantity
            )

    def teardown(self) -> None:
        self.repository.breaks_at = None
        try:
            self.run(self.venues[0].verify())
            assert self.run(self.venues[0].matching.reconcile(now=self.clock.now())) == 0
        finally:
            for database in self.databases:
                self.run(database.close())
            self.loop.close()
            shutil.rmtree(self.folder)


class HedgingMachine(Machine):
    hedging = True


def _place(trader: Trader, ref: Ref) -> int:
    return next(index for index, each in enumerate(trader.book.orders) if each is ref)


def _text(cents: int | None) -> str | None:
    return None if cents is None else str(Decimal(cents).scaleb(-2))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("broker") / "module.db"

    async def make() -> None:
        database = Database(f"sqlite+aiosqlite:///{file}", schema="broker")
        await migrate(database, "broker")
        async with database.transaction() as transaction:
            await transaction.execute(sa.text("SELECT 1"))
        await database.close()

    asyncio.run(make())
    return file


def run(machine: type[Machine], template: Path, examples: int, steps: int) -> None:
    machine.template = template
    machine.TestCase.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    case = machine.TestCase()
    case.runTest()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", [Machine, HedgingMachine])
def test_any_trading_is_as_the_model_says(machine: type[Machine], template: Path) -> None:
    run(machine, template, examples=8, steps=25)


@pytest.mark.nightly
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("machine", [Machine, HedgingMachine])
def test_long_trading_is_as_the_model_says(machine: type[Machine], template: Path) -> None:
    run(
        machine,
        template,
        examples=int(os.environ.get("MODEL_EXAMPLES", "1000")),
        steps=int(os.environ.get("MODEL_STEPS", "100")),
    )
