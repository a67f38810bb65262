"""What is held over 00:00 UTC costs financing, once per day, charged by the holder of a lease."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial

import structlog

from trading_api.ledger.domain import EntryType
from trading_api.modules.broker.domain.execution import Execution
from trading_api.modules.broker.domain.instrument import COST_SCALE, Policy, Terms
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.domain.schedules import days_to_finance, midnight_of
from trading_api.modules.broker.ports import InstrumentSource, QuoteSource
from trading_api.modules.broker.service.apart import each_apart
from trading_api.modules.broker.service.desk import Books, Desk
from trading_api.modules.broker.service.risk import newest
from trading_api.runtime.database import Database, Lease, Leases, Transaction

log = structlog.get_logger("broker")

_PAGE = 500


class FinancingService:
    """Charges every account that held something over midnight."""

    def __init__(
        self,
        *,
        database: Database,
        books: Books,
        quotes: QuoteSource,
        instruments: InstrumentSource,
        leases: Leases,
        policy: Policy,
    ) -> None:
        self._database = database
        self._books = books
        self._quotes = quotes
        self._instruments = instruments
        self._leases = leases
        self._policy = policy

    async def charge(self, *, lease: Lease, now: datetime) -> int:
        """Charge what is due for every midnight that has passed; return how many accounts.

        A position costs by the quantity held at 00:00 UTC, whenever this runs, at the newest mark.
        Once per account and day: the account remembers the last day, and so does each entry's id.
        Nights that nobody was there to charge are charged when somebody is. An account that fails
        stops no other.

        Raises:
            LeaseLostError: another instance charges now; nothing more was changed.
            MarketUnavailableError: what kind the instruments are isn't known.
        """
        today, charged, after = now.astimezone(UTC).date(), 0, ""
        while True:
            async with self._database.snapshot() as snapshot:
                found = await self._books.repository.list_to_finance(
                    snapshot, today=today, after=after, limit=_PAGE
                )
                held = await self._books.repository.list_held_symbols(snapshot) if found else []
            await self._quotes.refresh(held)
            charge = partial(self._charge, lease=lease, now=now)
            charged += await each_apart(found, charge, work="financing")
            if len(found) < _PAGE:
                return charged
            after = found[-1]

    async def _charge(self, account_id: str, lease: Lease, now: datetime) -> bool:
        kinds = {}
        async with self._database.snapshot() as snapshot:
            positions = await self._books.repository.list_positions(snapshot, account_id)
        for symbol in {each.symbol for each in positions}:
            instrument = await self._instruments.find(symbol)
            # An instrument that is gone costs nothing: nobody knows its schedule.
            kinds[symbol] = "" if instrument is None else instrument.kind

        async def command(transaction: Transaction) -> bool:
            await self._leases.ensure_held(transaction, lease)
            desk = await Desk.open(self._books, transaction, account_id, now)
            assert desk is not None, "accounts are never deleted"
            days = days_to_finance(desk.account.financed_on, now)
            if not days:
                return False
            await self._books.ledger.open_accounts(
                transaction, [desk.house.financing], created_at=now
            )
            executions = await self._books.repository.list_executions_since(
                transaction, account_id, since=midnight_of(days[0])
            )
            held = await self._list_held_since(desk, executions)
            for day in days:
                traded: Counter[str] = Counter()
                for each in executions:
                    if each.executed_at >= midnight_of(day):
                        traded[each.position_id] += each.side.sign * each.quantity
                for position in held:
                    quantity = position.signed_quantity - traded[position.position_id]
                    kind = kinds.get(position.symbol, "")
                    await self._charge_night(desk, position, quantity, kind, day)
            desk.account = replace(desk.account, financed_on=days[-1])
            await desk.close()
            return True

        return await self._database.group(command, key=account_id)

    async def _list_held_since(self, desk: Desk, executions: Sequence[Execution]) -> list[Position]:
        """Return all positions that may have been held before those executions, by id."""
        found = dict(desk.positions)
        # Desks leave out closed entries of hedging accounts; such a one may have been held then.
        for position_id in {each.position_id for each in executions} - found.keys():
            closed = await self._books.repository.find_position(
                desk.transaction, desk.account.account_id, position_id
            )
            assert closed is not None, "positions stay when they are closed"
            found[position_id] = closed
        return [found[position_id] for position_id in sorted(found)]

    def _terms_of(self, position: Position) -> Terms:
        return position.at(newest(self._quotes.find, [position])).terms

    async def _charge_night(
        self, desk: Desk, position: Position, quantity: int, kind: str, day: date
    ) -> None:
        """Charge one position for the night that ended at a day's 00:00 UTC."""
        rate = self._policy.financing_by_kind.get(kind)
        if rate is None or quantity == 0:
            return
        terms = self._terms_of(position)
        mark = replace(position, signed_quantity=quantity).mark(self._quotes.find(position.symbol))
        owed = rate.compute_owed(
            signed_value=terms.to_account(terms.compute_value(quantity, mark)),
            per_minor=int(10 ** (COST_SCALE - terms.currency.scale)),
        )
        if owed == 0:
            return
        await desk.post(
            f"financing_{desk.account.account_id}_{position.position_id}_{day.isoformat()}",
            EntryType.FINANCING,
            against=desk.house.financing,
            change_minor=-owed,
            reference=f"{position.symbol} {day.isoformat()}",
            description=f"Financing of {position.symbol} over the night to {day.isoformat()}",
        )
        held = desk.positions[position.symbol]
        desk.keep(replace(held, financing_minor=held.financing_minor + owed))
        desk.transaction.after_commit(
            partial(
                log.info,
                "financing_charged",
                account_id=desk.account.account_id,
                symbol=position.symbol,
                day=day.isoformat(),
                owed_minor=owed,
            )
        )
