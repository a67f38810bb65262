"""Equity over time: sampled by the holder of a lease, reported as curve, returns and drawdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from trading_api.modules.broker.domain.account import Account, Valuation, compute_valuation
from trading_api.modules.broker.domain.performance import (
    CurvePoint,
    DayResult,
    EquityPoint,
    compute_curve,
    compute_days,
    point_of,
    thin,
)
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.ports import QuoteSource
from trading_api.modules.broker.repository.samples import SampleRepository, SymbolResult
from trading_api.modules.broker.service.accounts import AccountService
from trading_api.modules.broker.service.desk import Books
from trading_api.modules.broker.service.risk import newest
from trading_api.runtime.database import Database, Lease, Leases, Transaction

CURVE_MAX = 1000
"""Points of a curve; more are thinned out, the figures beside it are made from all."""

_PAGE = 500
_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_MINUTES_KEPT = timedelta(days=7)
_HOURS_KEPT = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Performance:
    """How an account did in a window.

    Attributes:
        from_: where it begins: what was asked for, or when the account began (anew).
        worth: now.
        growth: what one unit became, without deposits and withdrawals.
        drawdown_max: the deepest fall below the best growth before it, 0 to 1.
        profit_minor: what trading earned, open results included.
        exposure_minor: value of all positions now, each without its sign.
        net_exposure_minor: the same with their signs.
        unrealized_by_symbol: of what is held now.
    """

    account: Account
    from_: datetime
    to: datetime
    worth: Valuation
    growth: Decimal
    drawdown_max: Decimal
    profit_minor: int
    flows_minor: int
    exposure_minor: int
    net_exposure_minor: int
    curve: Sequence[CurvePoint]
    days: Sequence[DayResult]
    symbols: Sequence[SymbolResult]
    unrealized_by_symbol: dict[str, int]


class PerformanceService:
    """Samples every account that moves, and tells how an account did."""

    def __init__(
        self,
        *,
        database: Database,
        books: Books,
        samples: SampleRepository,
        accounts: AccountService,
        quotes: QuoteSource,
        leases: Leases,
    ) -> None:
        self._database = database
        self._books = books
        self._samples = samples
        self._accounts = accounts
        self._quotes = quotes
        self._leases = leases

    async def sample(self, *, lease: Lease, now: datetime) -> int:
        """Sample the accounts that hold something or have news; return how many.

        Raises:
            LeaseLostError: another instance samples now.
        """
        count, after = 0, ""
        while True:
            async with self._database.snapshot() as snapshot:
                found = await self._samples.list_due(snapshot, after=after, limit=_PAGE)
            points = [
                (
                    each.account_id,
                    self._point_of(each.cash_minor, each.positions, each.sequence, now),
                )
                for each in found
            ]
            changed = [(each.account_id, each.sequence) for each in found if each.is_changed]
            if points:
                await self._write(points, changed, lease)
            count += len(points)
            if len(found) < _PAGE:
                return count
            after = found[-1].account_id

    async def thin_out(self, *, lease: Lease, now: datetime) -> int:
        """Keep one sample an hour after a week, one a day after 90 days; return how many went.

        Raises:
            LeaseLostError: another instance does it now.
        """

        async def command(transaction: Transaction) -> int:
            await self._leases.ensure_held(transaction, lease)
            hours = await self._samples.thin_out(
                transaction, before=now - _MINUTES_KEPT, bucket_us=_HOUR_US
            )
            return hours + await self._samples.thin_out(
                transaction, before=now - _HOURS_KEPT, bucket_us=_DAY_US
            )

        return await self._database.group(command)

    async def get_performance(
        self,
        *,
        user_id: str,
        account_id: str,
        from_: datetime | None,
        to: datetime | None,
        now: datetime,
    ) -> Performance:
        """Return how an account did from its beginning, or in [from_, to), up to now.

        Raises:
            AccountNotFoundError: not the user's account.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        repository = self._books.repository
        async with self._database.snapshot() as snapshot:
            account = await repository.find_account(snapshot, account_id)
            assert account is not None, "accounts are never deleted"
            positions = await repository.list_positions(snapshot, account_id)
            cash = await self._books.ledger.get_balance(snapshot, account.cash_account_id)
            begins = max(account.begun_at, from_ or account.begun_at)
            ends = min(now, to or now)
            points = await self._samples.list_samples(snapshot, account_id, from_=begins, to=ends)
            symbols = await self._samples.sum_by_symbol(
                snapshot,
                account_id,
                from_=begins,
                # What was done at this very instant is in the worth, so it is in here too.
                to=ends + timedelta(microseconds=1) if ends == now else ends,
            )
        # What was before a reset is another story, though it may be the last sample before.
        points = [each for each in points if each.at >= account.begun_at]
        worth = self._value(cash.total.minor, positions)
        if ends == now:
            sequence = account.event_sequence
            points.append(self._point_of(cash.total.minor, positions, sequence, now))
        curve = compute_curve(points)
        values = self._values_of(positions)
        return Performance(
            account=account,
            from_=begins,
            to=ends,
            worth=worth,
            growth=curve[-1].growth if curve else Decimal(1),
            drawdown_max=max((each.drawdown for each in curve), default=Decimal(0)),
            profit_minor=_profit(points),
            flows_minor=points[-1].flows_minor - points[0].flows_minor if points else 0,
            exposure_minor=sum(abs(each) for each in values),
            net_exposure_minor=sum(values),
            curve=thin(curve, CURVE_MAX),
            days=compute_days(points),
            symbols=symbols,
            unrealized_by_symbol=self._unrealized_by_symbol(positions),
        )

    async def _write(
        self,
        points: Sequence[tuple[str, EquityPoint]],
        changed: Sequence[tuple[str, int]],
        lease: Lease,
    ) -> None:
        async def command(transaction: Transaction) -> None:
            await self._leases.ensure_held(transaction, lease)
            await self._samples.add_samples(transaction, points)
            await self._samples.mark_sampled(transaction, changed)

        await self._database.group(command)

    def _point_of(
        self, cash_minor: int, positions: Sequence[Position], sequence: int, at: datetime
    ) -> EquityPoint:
        return point_of(
            self._value(cash_minor, positions),
            exposure_minor=sum(abs(each) for each in self._values_of(positions)),
            sequence=sequence,
            at=at,
        )

    def _value(self, cash_minor: int, positions: Sequence[Position]) -> Valuation:
        return compute_valuation(
            cash_minor=cash_minor,
            positions=positions,
            quotes=newest(self._quotes.find, positions),
        )

    def _values_of(self, positions: Sequence[Position]) -> list[int]:
        """Return the value of each open position at its mark, minor units, signed."""
        return [
            each.at(newest(self._quotes.find, [each])).terms.to_minor_middle(
                each.terms.compute_value(
                    each.signed_quantity, each.mark(self._quotes.find(each.symbol))
                )
            )
            for each in positions
            if not each.is_flat
        ]

    def _unrealized_by_symbol(self, positions: Sequence[Position]) -> dict[str, int]:
        found: dict[str, int] = {}
        for each in positions:
            if not each.is_flat:
                mark = each.mark(self._quotes.find(each.symbol))
                worth = each.at(newest(self._quotes.find, [each])).compute_unrealized(mark)
                found[each.symbol] = found.get(each.symbol, 0) + worth
        return found


def _profit(points: Sequence[EquityPoint]) -> int:
    if not points:
        return 0
    first, last = points[0], points[-1]
    return last.equity_minor - first.equity_minor - (last.flows_minor - first.flows_minor)
