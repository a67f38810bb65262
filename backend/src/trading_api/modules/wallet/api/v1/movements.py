"""Transfers, exchange, statements, fees."""

from typing import Annotated, Literal

from fastapi import Path, Query, Response
from pydantic import AwareDatetime

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import UnavailableError
from trading_api.modules.wallet.api.v1.parts import (
    AMOUNT_ERRORS,
    NEXT_CURSOR,
    PAGE_DEFAULT,
    CurrencyCode,
    Cursor,
    Limit,
    Services,
    user_of,
)
from trading_api.modules.wallet.errors import (
    AmountTooSmallError,
    BooksDifferError,
    CurrencyDiffersError,
    CurrencyNotSupportedError,
    DailyLimitError,
    InsufficientCashError,
    InsufficientFundsError,
    PairNotQuotedError,
    RangeInvertedError,
    RateMovedError,
    RateStaleError,
    SameCurrencyError,
    StatementTooLongError,
    TradingAccountNotFoundError,
    TransferDiffersError,
    TransferEndsError,
    TransferNotFoundError,
    WalletFrozenError,
)
from trading_api.modules.wallet.schemas import (
    ExchangeRequest,
    ExchangeView,
    FeeView,
    RateView,
    StatementView,
    TransferRequest,
    TransferView,
    csv_of,
)
from trading_api.runtime.http import Access, CurrentPrincipal, IdempotencyKey, ModuleRouter
from trading_api.runtime.http.cursors import CursorInvalidError, Cursors

_REPLAYED = {
    "Idempotent-Replayed": {
        "description": "`true` on the answer to a repeat",
        "schema": {"type": "string"},
    }
}


def add_movement_routes(
    router: ModuleRouter, services: Services, *, clock: Clock, cursors: Cursors
) -> None:
    """Declare them."""

    @router.post(
        "/transfers",
        access=Access.scope("wallet:trade"),
        summary="Move money between one's wallet and a trading account",
        status_code=201,
        response_model=TransferView,
        responses={
            201: {"description": "The transfer, ended; see its state", "headers": _REPLAYED},
            202: {"description": "Begun; it ends in the background", "model": TransferView},
        },
        errors=(
            *AMOUNT_ERRORS,
            BooksDifferError,
            CurrencyDiffersError,
            DailyLimitError,
            InsufficientCashError,
            InsufficientFundsError,
            TradingAccountNotFoundError,
            TransferDiffersError,
            TransferEndsError,
            WalletFrozenError,
        ),
    )
    async def transfer(
        request: TransferRequest,
        response: Response,
        principal: CurrentPrincipal,
        idempotency_key: IdempotencyKey = None,
    ) -> TransferView:
        started = await services.transfers.transfer(
            user_id=user_of(principal),
            source=request.from_,
            destination=request.to,
            amount=request.amount,
            currency=request.currency,
            description=request.description,
            client_transfer_id=request.client_transfer_id,
            idempotency_key=idempotency_key,
            now=clock.now(),
        )
        if started.transfer.is_open:
            response.status_code = 202
        if started.is_replay:
            response.headers["Idempotent-Replayed"] = "true"
        return TransferView.of(started.transfer)

    @router.get(
        "/transfers",
        access=Access.scope("wallet:read"),
        summary="Transfers, newest first",
        response_model=list[TransferView],
        responses=NEXT_CURSOR,
        errors=[CursorInvalidError],
    )
    async def list_transfers(
        response: Response,
        principal: CurrentPrincipal,
        limit: Limit = PAGE_DEFAULT,
        cursor: Cursor = None,
    ) -> list[TransferView]:
        user_id = user_of(principal)
        filters = {"list": "transfers", "user": user_id}
        below = None if cursor is None else str(cursors.decode(cursor, filters=filters)["t"])
        page, following = await services.transfers.list_transfers(
            user_id=user_id, limit=limit, below=below
        )
        if following is not None:
            response.headers["X-Next-Cursor"] = cursors.encode({"t": following}, filters=filters)
        return [TransferView.of(each) for each in page]

    @router.get(
        "/transfers/{transfer_id}",
        access=Access.scope("wallet:read"),
        summary="One transfer",
        response_model=TransferView,
        errors=[TransferNotFoundError],
    )
    async def get_transfer(
        transfer_id: Annotated[str, Path(min_length=1, max_length=64)],
        principal: CurrentPrincipal,
    ) -> TransferView:
        found = await services.transfers.get_transfer(
            user_id=user_of(principal), transfer_id=transfer_id
        )
        return TransferView.of(found)

    @router.get(
        "/rates",
        access=Access.scope("wallet:read"),
        summary="What currencies are exchanged at right now",
        response_model=list[RateView],
        errors=[UnavailableError],
    )
    async def list_rates() -> list[RateView]:
        return [RateView.of(each) for each in await services.exchange.list_offers(now=clock.now())]

    @router.post(
        "/exchange",
        access=Access.scope("wallet:trade"),
        summary="Exchange currencies within one's wallet",
        status_code=201,
        response_model=ExchangeView,
        responses={201: {"description": "The exchange as it was made", "headers": _REPLAYED}},
        errors=(
            *AMOUNT_ERRORS,
            AmountTooSmallError,
            InsufficientFundsError,
            PairNotQuotedError,
            RateMovedError,
            RateStaleError,
            SameCurrencyError,
            WalletFrozenError,
        ),
    )
    async def exchange(
        request: ExchangeRequest,
        response: Response,
        principal: CurrentPrincipal,
        idempotency_key: IdempotencyKey = None,
    ) -> ExchangeView:
        done = await services.exchange.exchange(
            user_id=user_of(principal),
            source=request.from_,
            destination=request.to,
            amount=request.amount,
            minimum=request.minimum,
            description=request.description,
            idempotency_key=idempotency_key,
            now=clock.now(),
        )
        if done.is_replay:
            response.headers["Idempotent-Replayed"] = "true"
        return ExchangeView.of(done)

    @router.get(
        "/fees",
        access=Access.scope("wallet:read"),
        summary="What each kind of request costs",
        response_model=list[FeeView],
    )
    async def list_fees() -> list[FeeView]:
        ppm = services.exchange.fee_ppm
        free = [
            FeeView(operation=each, kind="free", ppm=0, description="free of charge")
            for each in ("DEPOSIT", "WITHDRAWAL", "TRANSFER")
        ]
        exchange_fee = FeeView(
            operation="EXCHANGE",
            kind="ppm_of_price",
            ppm=ppm,
            description="the market's bid or ask, and this margin on top",
        )
        return [*free, exchange_fee]

    @router.get(
        "/statement",
        access=Access.scope("wallet:read"),
        summary="Opening, entries and closing of a range; the sums prove themselves",
        response_model=StatementView,
        responses={
            200: {"content": {"text/csv": {"schema": {"type": "string"}}}},
        },
        errors=[RangeInvertedError, StatementTooLongError, CurrencyNotSupportedError],
    )
    async def get_statement(
        principal: CurrentPrincipal,
        from_: Annotated[
            AwareDatetime | None,
            Query(alias="from", description="recorded at or after; the wallet's opening if none"),
        ] = None,
        to: Annotated[
            AwareDatetime | None, Query(description="recorded before; now if none")
        ] = None,
        currency: CurrencyCode = None,
        format: Annotated[  # noqa: A002 - the parameter's name on the wire
            Literal["json", "csv"], Query()
        ] = "json",
    ) -> Response | StatementView:
        statement = await services.statements.make_statement(
            user_id=user_of(principal), from_=from_, to=to, currency=currency, now=clock.now()
        )
        if format == "json":
            return StatementView.of(statement)
        return Response(
            csv_of(statement),
            media_type="text/csv; charset=utf-8",
            headers={
                "Content-Disposition": 'attachment; filename="statement.csv"',
                "Cache-Control": "no-store",
            },
        )
