"""Leverage of an account by instrument: what is in force, what it may be, what it would mean."""

from dataclasses import dataclass, replace
from datetime import datetime

from trading_api.kernel.errors import FieldError, TradingError
from trading_api.kernel.values import decimal_of
from trading_api.modules.broker.domain.account import Account, Valuation
from trading_api.modules.broker.domain.event import Notice, NoticeCode
from trading_api.modules.broker.domain.instrument import Instrument, Policy
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.errors import (
    AccountNotFoundError,
    InstrumentNotTradableError,
    InstrumentUnknownError,
    LeverageDeniedError,
    LeverageInvalidError,
)
from trading_api.modules.broker.ports import InstrumentSource, QuoteSource
from trading_api.modules.broker.service.accounts import AccountService
from trading_api.modules.broker.service.desk import Books, Desk
from trading_api.modules.broker.service.risk import RiskGate
from trading_api.runtime.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class LeverageInfo:
    """What leverage an account has on an instrument, and what it may choose.

    Attributes:
        leverage: in force.
        minimum: smallest to choose.
        maximum: largest to choose: what the house allows for the kind of instrument.
    """

    instrument: Instrument
    leverage: int
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class LeveragePreview:
    """What an account would be worth at another leverage.

    Attributes:
        error: why it would be refused; None where it would not.
    """

    info: LeverageInfo
    account: Account
    before: Valuation
    after: Valuation
    error: TradingError | None


class LeverageService:
    """Shows and sets leverage; what is set is in force for margin and reservations at once."""

    def __init__(
        self,
        *,
        database: Database,
        books: Books,
        accounts: AccountService,
        quotes: QuoteSource,
        instruments: InstrumentSource,
        risk: RiskGate,
        policy: Policy,
    ) -> None:
        self._database = database
        self._books = books
        self._accounts = accounts
        self._quotes = quotes
        self._instruments = instruments
        self._risk = risk
        self._policy = policy

    async def get_info(
        self, *, user_id: str, account_id: str | None, symbol: str, now: datetime
    ) -> LeverageInfo:
        """Return the leverage in force on an instrument.

        Raises:
            AccountNotFoundError: not the user's account.
            InstrumentUnknownError, InstrumentNotTradableError: the symbol can't be traded.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        instrument = await self._look_up(symbol)
        async with self._database.snapshot() as snapshot:
            account = await self._books.repository.find_account(snapshot, account_id)
        assert account is not None, "accounts are never deleted"
        return self._info(instrument, account)

    async def set_leverage(
        self, *, user_id: str, account_id: str | None, symbol: str, leverage: int, now: datetime
    ) -> LeverageInfo:
        """Put a leverage in force for an instrument; a repeat changes nothing.

        Raises:
            LeverageInvalidError: outside what the house offers.
            LeverageDeniedError: the account can't carry what it holds and orders at it.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        instrument = await self._look_up(symbol)

        async def command(transaction: Transaction) -> LeverageInfo:
            desk = await Desk.open(self._books, transaction, account_id, now)
            if desk is None:
                raise AccountNotFoundError("there is no such trading account")
            info = self._info(instrument, desk.account)
            _ensure_offered(info, leverage)
            if leverage == info.leverage:
                return info
            before, after = await self._apply(desk, instrument, leverage)
            error = _refusal(desk.account, before, after)
            if error is not None:
                raise error
            leverages = {**desk.account.leverages, symbol: leverage}
            desk.account = replace(desk.account, leverages=leverages)
            desk.record(
                Notice(
                    account_id,
                    NoticeCode.LEVERAGE,
                    is_error=False,
                    text=f"Leverage of {symbol} is {leverage}:1",
                    numbers={"symbol": symbol, "leverage": str(leverage)},
                )
            )
            await desk.close()
            return replace(info, leverage=leverage)

        return await self._database.group(command, key=account_id)

    async def preview_leverage(
        self, *, user_id: str, account_id: str | None, symbol: str, leverage: int, now: datetime
    ) -> LeveragePreview:
        """Reckon what a leverage would mean; nothing changes.

        Raises:
            LeverageInvalidError: outside what the house offers.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        instrument = await self._look_up(symbol)
        async with self._database.snapshot() as snapshot:
            account = await self._books.repository.find_account(snapshot, account_id)
            assert account is not None, "accounts are never deleted"
            info = self._info(instrument, account)
            _ensure_offered(info, leverage)
            desk = await Desk.over(self._books, snapshot, account, now)
            before, after = await self._apply(desk, instrument, leverage)
        return LeveragePreview(
            replace(info, leverage=leverage),
            account,
            before,
            after,
            _refusal(account, before, after),
        )

    async def _apply(
        self, desk: Desk, instrument: Instrument, leverage: int
    ) -> tuple[Valuation, Valuation]:
        """Give the desk's positions the leverage; return the account's worth before and after."""
        before = await self._risk.value(desk)
        await desk.load_orders(instrument.symbol)
        for position in list(desk.positions.values()):
            if position.symbol == instrument.symbol:
                desk.keep(_with_leverage(position, leverage))
        desk.reserve(instrument.symbol)
        return before, await self._risk.value(desk)

    def _info(self, instrument: Instrument, account: Account) -> LeverageInfo:
        return LeverageInfo(
            instrument,
            leverage=self._policy.leverage_of(instrument, account.leverages),
            minimum=1,
            maximum=self._policy.leverage_by_kind[instrument.kind],
        )

    async def _look_up(self, symbol: str) -> Instrument:
        found = await self._instruments.find(symbol)
        if found is None:
            raise InstrumentUnknownError(
                "there is no such instrument",
                errors=[FieldError("symbol", "unknown", "names no instrument")],
            )
        if not found.tradable or found.kind not in self._policy.leverage_by_kind:
            raise InstrumentNotTradableError(
                f"{symbol} can't be traded",
                errors=[FieldError("symbol", "not_tradable", "is not tradable")],
            )
        await self._quotes.refresh([symbol])
        return found


def _with_leverage(position: Position, leverage: int) -> Position:
    return replace(position, terms=replace(position.terms, leverage=leverage))


def _ensure_offered(info: LeverageInfo, leverage: int) -> None:
    if not info.minimum <= leverage <= info.maximum:
        message = f"must be from {info.minimum} to {info.maximum}"
        raise LeverageInvalidError(
            f"leverage: {message}", errors=[FieldError("leverage", "range", message)]
        )


def _refusal(account: Account, before: Valuation, after: Valuation) -> TradingError | None:
    # Who is short of margin already may still ask for less of it.
    if after.available_minor >= min(0, before.available_minor):
        return None
    scale, code = account.currency.scale, account.currency.code
    return LeverageDeniedError(
        "the account hasn't the margin that its positions and orders need at this leverage",
        required=f"{decimal_of(after.margin_minor + after.reserved_minor, scale):f}",
        equity=f"{decimal_of(after.equity_minor, scale):f}",
        currency=code,
    )
