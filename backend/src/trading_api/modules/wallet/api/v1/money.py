"""The wallet, deposits, withdrawals, transactions."""

from typing import Annotated

from fastapi import Query, Response
from pydantic import AwareDatetime

from trading_api.kernel.clock import Clock
from trading_api.ledger.domain import EntryType
from trading_api.ledger.engine import LinePosition
from trading_api.modules.wallet.api.v1.parts import (
    AMOUNT_ERRORS,
    NEXT_CURSOR,
    PAGE_DEFAULT,
    CurrencyCode,
    Cursor,
    FundingId,
    Limit,
    Services,
    user_of,
)
from trading_api.modules.wallet.domain import Receipt
from trading_api.modules.wallet.errors import (
    CurrencyNotSupportedError,
    DailyLimitError,
    DestinationMissingError,
    FundingClosedError,
    FundingNotFoundError,
    InsufficientFundsError,
    RangeInvertedError,
    WalletFrozenError,
)
from trading_api.modules.wallet.schemas import (
    EntryView,
    FundingRequest,
    FundingView,
    WalletView,
)
from trading_api.runtime.http import Access, CurrentPrincipal, IdempotencyKey, ModuleRouter
from trading_api.runtime.http.cursors import CursorInvalidError, Cursors

_RECEIPT_RESPONSES = {
    201: {
        "description": "The ledger entry; the first one again for a repeated Idempotency-Key",
        "headers": {
            "Idempotent-Replayed": {
                "description": "`true` on the answer to a repeat",
                "schema": {"type": "string"},
            }
        },
    },
    202: {
        "description": "Accepted; the payment rail waits for its confirmation",
        "model": EntryView,
    },
}


def add_money_routes(
    router: ModuleRouter, services: Services, *, clock: Clock, cursors: Cursors
) -> None:
    """Declare them."""
    service = services.wallets

    @router.get(
        "",
        access=Access.scope("wallet:read"),
        summary="The wallet and its balances",
        response_model=WalletView,
        errors=[CurrencyNotSupportedError],
    )
    async def get_wallet(principal: CurrentPrincipal, currency: CurrencyCode = None) -> WalletView:
        summary = await service.get_summary(
            user_id=user_of(principal), currency=currency, now=clock.now()
        )
        return WalletView.of(summary)

    @router.post(
        "/deposit",
        access=Access.scope("wallet:trade"),
        summary="Deposit money",
        status_code=201,
        response_model=EntryView,
        responses=_RECEIPT_RESPONSES,
        errors=(*AMOUNT_ERRORS, DailyLimitError, WalletFrozenError),
    )
    async def deposit(
        request: FundingRequest,
        response: Response,
        principal: CurrentPrincipal,
        idempotency_key: IdempotencyKey = None,
    ) -> EntryView:
        receipt = await service.deposit(
            user_id=user_of(principal),
            amount=request.asked,
            currency=request.currency,
            description=request.description,
            idempotency_key=idempotency_key,
            now=clock.now(),
        )
        return _answer(response, receipt)

    @router.post(
        "/withdraw",
        access=Access.scope("wallet:withdraw"),
        summary="Withdraw money",
        status_code=201,
        response_model=EntryView,
        responses=_RECEIPT_RESPONSES,
        errors=(
            *AMOUNT_ERRORS,
            DailyLimitError,
            DestinationMissingError,
            InsufficientFundsError,
            WalletFrozenError,
        ),
    )
    async def withdraw(
        request: FundingRequest,
        response: Response,
        principal: CurrentPrincipal,
        idempotency_key: IdempotencyKey = None,
    ) -> EntryView:
        receipt = await service.withdraw(
            user_id=user_of(principal),
            amount=request.asked,
            currency=request.currency,
            description=request.description,
            idempotency_key=idempotency_key,
            now=clock.now(),
            destination=request.destination,
        )
        return _answer(response, receipt)

    @router.get(
        "/transactions",
        rate="history",
        access=Access.scope("wallet:read"),
        summary="Ledger entries, newest first, with running balance",
        response_model=list[EntryView],
        responses=NEXT_CURSOR,
        errors=[CursorInvalidError, RangeInvertedError, CurrencyNotSupportedError],
    )
    async def list_transactions(
        response: Response,
        principal: CurrentPrincipal,
        limit: Limit = PAGE_DEFAULT,
        cursor: Cursor = None,
        type: Annotated[  # noqa: A002 - the parameter's name on the wire
            list[EntryType] | None, Query(max_length=20, description="only these")
        ] = None,
        currency: CurrencyCode = None,
        from_: Annotated[
            AwareDatetime | None,
            Query(alias="from", description="recorded at or after; with a time zone"),
        ] = None,
        to: Annotated[
            AwareDatetime | None, Query(description="recorded before; with a time zone")
        ] = None,
    ) -> list[EntryView]:
        user_id = user_of(principal)
        filters = {
            "user": user_id,
            "types": sorted(set(type or ())),
            "currency": currency,
            "from": from_ and from_.timestamp(),
            "to": to and to.timestamp(),
        }
        page = await service.list_transactions(
            user_id=user_id,
            limit=limit,
            below=None if cursor is None else _position_of(cursors.decode(cursor, filters=filters)),
            types=type or (),
            currency=currency,
            from_=from_,
            to=to,
            now=clock.now(),
        )
        if page.next_position is not None:
            response.headers["X-Next-Cursor"] = cursors.encode(
                _cursor_of(page.next_position), filters=filters
            )
        return [EntryView.of_line(line, wallet_id=page.wallet_id) for line in page.lines]

    @router.post(
        "/fundings/{funding_id}/confirm",
        access=Access.scope("wallet:withdraw"),
        summary="Confirm one's own withdrawal",
        response_model=FundingView,
        errors=[FundingNotFoundError, FundingClosedError, WalletFrozenError],
    )
    async def confirm_funding(funding_id: FundingId, principal: CurrentPrincipal) -> FundingView:
        funding = await service.confirm_funding(
            user_id=user_of(principal), funding_id=funding_id, now=clock.now()
        )
        return FundingView.of(funding)

    @router.post(
        "/fundings/{funding_id}/cancel",
        access=Access.scope("wallet:trade"),
        summary="Take one's own deposit or withdrawal back while it waits",
        response_model=FundingView,
        errors=[FundingNotFoundError, FundingClosedError],
    )
    async def cancel_funding(funding_id: FundingId, principal: CurrentPrincipal) -> FundingView:
        funding = await service.cancel_funding(
            user_id=user_of(principal), funding_id=funding_id, now=clock.now()
        )
        return FundingView.of(funding)


def _answer(response: Response, receipt: Receipt) -> EntryView:
    if not receipt.is_settled:
        response.status_code = 202
    if receipt.is_replay:
        response.headers["Idempotent-Replayed"] = "true"
    return EntryView.of_receipt(receipt)


def _cursor_of(position: LinePosition) -> dict[str, object]:
    return {"r": position.recorded_at_us, "a": position.account_id, "s": position.sequence}


def _position_of(found: dict[str, object]) -> LinePosition:
    return LinePosition(int(str(found["r"])), str(found["a"]), int(str(found["s"])))
