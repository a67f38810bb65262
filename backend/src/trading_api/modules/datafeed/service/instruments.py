"""What operators do with instruments: list, change, retire. Each change is a fact of its own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

from trading_api.contracts.datafeed import InstrumentChanged
from trading_api.kernel.clock import from_us, to_us
from trading_api.kernel.errors import FieldError
from trading_api.ledger.checks import Violation
from trading_api.modules.datafeed.domain.aggregate import (
    DAY_SECONDS,
    HOUR_SECONDS,
    parse_session,
)
from trading_api.modules.datafeed.domain.instrument import (
    DIVIDEND_DECIMALS,
    LIVE_EXCHANGES,
    AssetClass,
    Dividend,
    Exchange,
    Instrument,
)
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.errors import (
    InstrumentChangedError,
    InstrumentExistsError,
    InstrumentInvalidError,
    InstrumentNotFoundError,
    InstrumentTradableError,
)
from trading_api.modules.datafeed.ports import CalendarSource
from trading_api.modules.datafeed.repository import InstrumentRepository
from trading_api.modules.datafeed.repository.checks import check_market_data
from trading_api.modules.datafeed.repository.instruments import SeriesFacts
from trading_api.modules.datafeed.service.market import DatafeedService
from trading_api.runtime.database import Database, Idempotency, Outbox, Transaction

_TICKER = re.compile(r"[A-Z0-9][A-Z0-9._-]{0,19}", re.ASCII)
_CURRENCY = re.compile(r"[A-Z0-9]{3,8}", re.ASCII)
_DERIVED = ("session_holidays", "session_corrections")
"""Fields that follow from the calendar; an audit of the calendar's name says enough."""


@dataclass(frozen=True, slots=True)
class InstrumentResult:
    """What a change led to.

    Attributes:
        instrument: as it is from now on.
        replayed: the same request had come before, this is its answer.
    """

    instrument: Instrument
    replayed: bool = False


class InstrumentService:
    """Changes instruments, tells it, and has the market of this process follow at once.

    Other processes follow within the interval of their catalogue watch.
    """

    def __init__(
        self,
        *,
        database: Database,
        repository: InstrumentRepository,
        market: DatafeedService,
        calendars: CalendarSource,
        outbox: Outbox,
        idempotency: Idempotency,
    ) -> None:
        self._database = database
        self._repository = repository
        self._market = market
        self._calendars = calendars
        self._outbox = outbox
        self._idempotency = idempotency

    async def ensure_listable(self, *, instrument: Instrument) -> bool:
        """Check a listing before the work that it ends; return whether it is still to be done.

        The decimals aren't looked at, since they are the series', which may not be there yet.

        Raises:
            InstrumentExistsError: the symbol is or was listed, and not over that series.
            InstrumentInvalidError: its parts contradict one another.
        """
        _ensure_own(_checked(instrument))
        async with self._database.snapshot() as transaction:
            if not await self._repository.is_taken(
                transaction, instrument.exchange, instrument.ticker
            ):
                return True
            series_id = await self._repository.find_series_id(
                transaction, instrument.exchange, instrument.ticker
            )
        if series_id != instrument.series_id:
            raise InstrumentExistsError(f"{instrument.symbol} is or was listed already")
        return False

    async def list_instrument(
        self,
        *,
        instrument: Instrument,
        operator_id: str,
        idempotency_key: str | None,
        now: datetime,
    ) -> InstrumentResult:
        """List a new instrument over a stored series.

        Args:
            instrument: with or without holidays; a calendar's are filled in.

        Raises:
            InstrumentExistsError: the symbol is or was listed.
            InstrumentInvalidError: its parts contradict one another or the series.
            IdempotencyKeyReusedError: the key came with another instrument before.
        """
        _ensure_own(instrument)
        instrument = await self._with_calendar(_checked(instrument), now)
        operation, body = "list_instrument", _audited(instrument)

        async def command(transaction: Transaction) -> InstrumentResult:
            kept = await self._idempotency.begin(
                transaction,
                user_id=operator_id,
                operation=operation,
                key=idempotency_key,
                body=body,
            )
            if kept is not None:
                return InstrumentResult(_instrument_of(kept), replayed=True)
            exchange, ticker = instrument.exchange, instrument.ticker
            if await self._repository.is_taken(transaction, exchange, ticker):
                raise InstrumentExistsError(f"{instrument.symbol} is or was listed already")
            facts = await self._repository.find_series(transaction, instrument.series_id)
            _ensure_fits(instrument, facts)
            await self._repository.add(transaction, instrument, now_us=to_us(now))
            await self._tell(transaction, "listed", None, instrument, operator_id, now)
            await self._idempotency.finish(
                transaction,
                user_id=operator_id,
                operation=operation,
                key=idempotency_key,
                result=_fields_of(instrument),
            )
            return InstrumentResult(instrument)

        return await self._run(command)

    async def change_instrument(
        self,
        *,
        symbol: str,
        changes: Mapping[str, Any],
        version: int | None,
        operator_id: str,
        now: datetime,
    ) -> InstrumentResult:
        """Change some fields; repeating the same change has no further effect.

        Args:
            changes: new values by the instrument's attribute.
            version: the version that the operator saw; None to change whatever is there.

        Raises:
            InstrumentNotFoundError: no such symbol, or it isn't stored (made from settings).
            InstrumentChangedError: it has another version by now.
            InstrumentInvalidError: the result would contradict itself or its series.
        """
        exchange, ticker = self._split(symbol)
        calendar_changed = "calendar" in changes

        async def command(transaction: Transaction) -> InstrumentResult:
            before = await self._lock(transaction, exchange, ticker)
            _ensure_version(before, version)
            after = _checked(replace(before, **changes))
            if calendar_changed and after.calendar != before.calendar:
                after = replace(after, session_holidays="", session_corrections="")
                after = replace(after, **holidays)
            if after == before:
                return InstrumentResult(before)
            facts = await self._repository.find_series(transaction, after.series_id)
            _ensure_fits(after, facts)
            after = replace(after, version=before.version + 1)
            await self._repository.save(transaction, after, now_us=to_us(now))
            await self._tell(transaction, "changed", before, after, operator_id, now)
            return InstrumentResult(after)

        # Computed before the transaction: a calendar may take seconds.
        holidays = await self._holidays(changes.get("calendar"), None, now)
        return await self._run(command)

    async def replace_dividends(
        self,
        *,
        symbol: str,
        dividends: Sequence[Dividend],
        version: int | None,
        operator_id: str,
        now: datetime,
    ) -> Sequence[Dividend]:
        """Put dividends in the place of an instrument's; a repeat changes nothing further.

        Args:
            dividends: all that it has from now on, in any order.
            version: the version of the instrument that the operator saw; None: any.

        Returns:
            Them in order.

        Raises:
            InstrumentNotFoundError: no such symbol, or it isn't stored.
            InstrumentChangedError: it has another version by now.
            InstrumentInvalidError: it is on DEMO, or two have the same day.
        """
        exchange, ticker = self._split(symbol)
        wanted = sorted(dividends, key=lambda each: each.time)
        if exchange is Exchange.DEMO:
            raise _invalid("symbol", "demo", "DEMO's days aren't those that dividends were paid on")
        if len({each.time for each in wanted}) != len(wanted):
            raise _invalid("dividends", "unique", "two dividends have the same ex-date")

        async def command(transaction: Transaction) -> InstrumentResult:
            before = await self._lock(transaction, exchange, ticker)
            _ensure_version(before, version)
            known = await self._repository.read_dividends(transaction, before)
            if known == wanted:
                return InstrumentResult(before)
            after = replace(before, version=before.version + 1)
            await self._repository.save(transaction, after, now_us=to_us(now))
            await self._repository.save_dividends(transaction, after, wanted)
            old = {"dividends": _dividends_text([each for each in known if each not in wanted])}
            new = {"dividends": _dividends_text([each for each in wanted if each not in known])}
            await self._tell(
                transaction, "changed", before, after, operator_id, now, differences=(old, new)
            )
            return InstrumentResult(after)

        await self._run(command)
        return wanted

    async def retire_instrument(
        self, *, symbol: str, version: int | None, operator_id: str, now: datetime
    ) -> Instrument:
        """Take an instrument off the list for good; its symbol is never given again.

        Raises:
            InstrumentNotFoundError: no such symbol, or it isn't stored.
            InstrumentChangedError: it has another version by now.
            InstrumentTradableError: orders on it are still taken; end that first.
        """
        exchange, ticker = self._split(symbol)

        async def command(transaction: Transaction) -> InstrumentResult:
            before = await self._lock(transaction, exchange, ticker)
            _ensure_version(before, version)
            if before.tradable:
                raise InstrumentTradableError(
                    f"{before.symbol} takes orders; make it untradable first"
                )
            after = replace(before, version=before.version + 1)
            await self._repository.save(transaction, after, now_us=to_us(now), is_retired=True)
            await self._tell(transaction, "retired", before, None, operator_id, now)
            return InstrumentResult(after)

        return (await self._run(command)).instrument

    async def verify(self) -> Sequence[Violation]:
        """Prove the stored market data from scratch; nothing is changed."""
        async with self._database.snapshot() as snapshot:
            return await check_market_data(snapshot)

    async def _run(self, command: Any) -> InstrumentResult:
        result: InstrumentResult = await self._database.run(command)
        await self._market.refresh()
        return result

    def _split(self, symbol: str) -> tuple[Exchange, str]:
        exchange, _, ticker = self._market.symbol_of(symbol=symbol).partition(":")
        return Exchange(exchange), ticker

    async def _lock(self, transaction: Transaction, exchange: Exchange, ticker: str) -> Instrument:
        found = await self._repository.lock(transaction, exchange, ticker)
        if found is None:
            raise InstrumentNotFoundError(
                f"{exchange}:{ticker} isn't stored: BAR_BROADCASTER_SYMBOLS makes it up",
                symbol=f"{exchange}:{ticker}",
            )
        return found

    async def _with_calendar(self, instrument: Instrument, now: datetime) -> Instrument:
        async with self._database.snapshot() as transaction:
            facts = await self._repository.find_series(transaction, instrument.series_id)
        return replace(instrument, **await self._holidays(instrument.calendar, facts, now))

    async def _holidays(
        self, calendar: str | None, facts: SeriesFacts | None, now: datetime
    ) -> dict[str, Any]:
        if calendar is None:
            return {}
        first = from_us(facts.first_at_us) if facts else now.replace(year=now.year - 20, day=1)
        found = await self._calendars.find(calendar, first_day=first.date())
        if found is None:
            raise _invalid("calendar", "calendar", f"no exchange calendar is called {calendar!r}")
        return {"session_holidays": found.holidays, "session_corrections": found.corrections}

    async def _tell(
        self,
        transaction: Transaction,
        change: Literal["listed", "changed", "retired"],
        before: Instrument | None,
        after: Instrument | None,
        operator_id: str,
        now: datetime,
        differences: tuple[dict[str, Any], dict[str, Any]] | None = None,
    ) -> None:
        old, new = differences or (_audited(before), _audited(after))
        if differences is None and before is not None and after is not None:
            names = [name for name in new if new[name] != old[name]]
            old, new = ({name: each[name] for name in names} for each in (old, new))
        present = after or before
        assert present is not None, "something was changed"
        # A retired instrument's row counts on although there is no later state to show.
        version = present.version if after else present.version + 1
        event = InstrumentChanged(
            instrument=present.symbol,
            change=change,
            version=version,
            changed_by=operator_id,
            before=old,
            after=new,
        )
        await self._outbox.add(
            transaction, event, key=present.symbol, key_sequence=version, occurred_at=now
        )


def _dividends_text(dividends: Sequence[Dividend]) -> str:
    return ", ".join(
        f"{from_us(each.time * 1_000_000).date()} "
        f"{Decimal(each.amount).scaleb(-DIVIDEND_DECIMALS).normalize():f}"
        for each in dividends
    )


def _checked(instrument: Instrument) -> Instrument:
    """Return the instrument if it makes sense by itself.

    Raises:
        InstrumentInvalidError: it doesn't; names the field.
    """
    if _TICKER.fullmatch(instrument.ticker) is None:
        raise _invalid("ticker", "ticker", "a ticker is up to 20 of A-Z, 0-9, dot, dash, _")
    if _CURRENCY.fullmatch(instrument.quote_currency) is None:
        raise _invalid("currency", "currency", "a currency is a code such as USD")
    try:
        ZoneInfo(instrument.time_zone)
    except (KeyError, ValueError, OSError):
        raise _invalid("timezone", "timezone", "not an IANA time zone") from None
    try:
        parse_session(instrument.session, instrument.time_zone)
    except ValueError as error:
        raise _invalid("session", "session", str(error)) from None
    if instrument.quantity_max < instrument.quantity_step:
        raise _invalid("quantity_max", "range", "the largest order is below the smallest")
    always_open = (instrument.session, instrument.time_zone) == ("24x7", "Etc/UTC")
    if instrument.exchange is Exchange.DEMO and not always_open:
        raise _invalid("session", "always_open", "DEMO is open 24x7, in Etc/UTC")
    if instrument.exchange is not Exchange.DEMO and instrument.tradable:
        raise _invalid("tradable", "demo_only", "the paper venue trades DEMO alone")
    return instrument


def _ensure_own(instrument: Instrument) -> None:
    if instrument.exchange in LIVE_EXCHANGES:
        raise _invalid("exchange", "provider", "its provider lists that exchange's instruments")


def _ensure_fits(instrument: Instrument, facts: SeriesFacts | None) -> None:
    if facts is None:
        raise _invalid("series", "series", f"no series is called {instrument.series_id!r}")
    if instrument.exchange is not Exchange.DEMO:
        if instrument.price_decimals != facts.price_decimals:
            wanted = facts.price_decimals
            raise _invalid("price_decimals", "series", f"the series has {wanted} decimals")
        if instrument.volume_decimals != facts.volume_decimals:
            wanted = facts.volume_decimals
            raise _invalid("volume_decimals", "series", f"the series has {wanted} decimals")
        return
    resolution = parse_resolution(facts.resolution)
    if resolution.is_intraday and (
        resolution.seconds % HOUR_SECONDS or DAY_SECONDS % resolution.seconds
    ):
        raise _invalid("series", "series", "DEMO needs bars of a day, or of hours that divide it")


def _ensure_version(instrument: Instrument, version: int | None) -> None:
    if version is not None and version != instrument.version:
        raise InstrumentChangedError(
            f"{instrument.symbol} has version {instrument.version} by now",
            version=instrument.version,
        )


def _fields_of(instrument: Instrument) -> dict[str, Any]:
    fields = asdict(instrument)
    return fields | {
        "exchange": str(instrument.exchange),
        "asset_class": str(fields["asset_class"]),
    }


def _instrument_of(fields: Mapping[str, Any]) -> Instrument:
    exchange, asset_class = Exchange(fields["exchange"]), AssetClass(fields["asset_class"])
    return Instrument(**{**fields, "exchange": exchange, "asset_class": asset_class})


def _audited(instrument: Instrument | None) -> dict[str, Any]:
    if instrument is None:
        return {}
    fields = _fields_of(instrument)
    return {name: value for name, value in fields.items() if name not in (*_DERIVED, "version")}


def _invalid(field: str, rule: str, message: str) -> InstrumentInvalidError:
    return InstrumentInvalidError(message, errors=[FieldError(field, rule, message)])
