"""Wallet API v1: parse, one service call, view."""

from typing import Annotated

from fastapi import Query, Response
from pydantic import AwareDatetime

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import (
    AmountOutOfRangeError,
    IdempotencyKeyReusedError,
    PermissionDeniedError,
    RequestInProgressError,
)
from trading_api.ledger.domain import EntryType
from trading_api.ledger.engine import LinePosition
from trading_api.modules.wallet.domain import Receipt
from trading_api.modules.wallet.errors import (
    AmountNotExactError,
    AmountNotPositiveError,
    CurrencyNotSupportedError,
    FundingClosedError,
    FundingNotFoundError,
    InsufficientFundsError,
    RangeInvertedError,
)
from trading_api.modules.wallet.schemas import (
    EntryView,
    FundingRequest,
    FundingView,
    WalletView,
)
from trading_api.modules.wallet.service import WalletService
from trading_api.runtime.http import Access, CurrentPrincipal, IdempotencyKey, ModuleRouter
from trading_api.runtime.http.cursors import CursorInvalidError, Cursors
from trading_api.runtime.identity import Principal

PAGE_DEFAULT = 50
PAGE_MAX = 500

Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="rows at most")]
CurrencyCode = Annotated[
    str | None, Query(min_length=1, max_length=12, description="only this currency")
]

_AMOUNT_ERRORS = (
    AmountNotPositiveError,
    AmountNotExactError,
    AmountOutOfRangeError,
    CurrencyNotSupportedError,
    IdempotencyKeyReusedError,
    RequestInProgressError,
)
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
_NEXT_CURSOR = {
    200: {
        "headers": {
            "X-Next-Cursor": {
                "description": "`cursor` of the next page; absent on the last",
                "schema": {"type": "string"},
            }
        }
    }
}


def build_router(service: WalletService, *, clock: Clock, cursors: Cursors) -> ModuleRouter:
    """Declare the routes of v1."""
    router = ModuleRouter(tags=["wallet"])

    @router.get(
        "",
        access=Access.scope("wallet:read"),
        summary="The wallet and its balances",
        response_model=WalletView,
        errors=[CurrencyNotSupportedError],
    )
    async def get_wallet(principal: CurrentPrincipal, currency: CurrencyCode = None) -> WalletView:
        summary = await service.get_summary(
            user_id=_user_of(principal), currency=currency, now=clock.now()
        )
        return WalletView.of(summary)

    @router.post(
        "/deposit",
        access=Access.scope("wallet:trade"),
        summary="Deposit money",
        status_code=201,
        response_model=EntryView,
        responses=_RECEIPT_RESPONSES,
        errors=_AMOUNT_ERRORS,
    )
    async def deposit(
        request: FundingRequest,
        response: Response,
        principal: CurrentPrincipal,
        idempotency_key: IdempotencyKey = None,
    ) -> EntryView:
        receipt = await service.deposit(
            user_id=_user_of(principal),
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
        errors=(*_AMOUNT_ERRORS, InsufficientFundsError),
    )
    async def withdraw(
        request: FundingRequest,
        response: Response,
        principal: CurrentPrincipal,
        idempotency_key: IdempotencyKey = None,
    ) -> EntryView:
        receipt = await service.withdraw(
            user_id=_user_of(principal),
            amount=request.asked,
            currency=request.currency,
            description=request.description,
            idempotency_key=idempotency_key,
            now=clock.now(),
        )
        return _answer(response, receipt)

    @router.get(
        "/transactions",
        rate="history",
        access=Access.scope("wallet:read"),
        summary="Ledger entries, newest first, with running balance",
        response_model=list[EntryView],
        responses=_NEXT_CURSOR,
        errors=[CursorInvalidError, RangeInvertedError, CurrencyNotSupportedError],
    )
    async def list_transactions(
        response: Response,
        principal: CurrentPrincipal,
        limit: Limit = PAGE_DEFAULT,
        cursor: Annotated[
            str | None, Query(max_length=512, description="`X-Next-Cursor` of the page before")
        ] = None,
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
        user_id = _user_of(principal)
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

    @router.get(
        "/fundings",
        access=Access.roles("operator", "admin"),
        summary="Deposits and withdrawals that wait for an operator, oldest first",
        response_model=list[FundingView],
    )
    async def list_fundings(limit: Limit = PAGE_DEFAULT) -> list[FundingView]:
        fundings = await service.list_pending_fundings(limit=limit)
        return [FundingView.of(funding) for funding in fundings]

    @router.post(
        "/fundings/{funding_id}/settle",
        access=Access.roles("operator", "admin"),
        summary="Confirm that the money of a funding came or went",
        response_model=FundingView,
        errors=[FundingNotFoundError, FundingClosedError],
    )
    async def settle_funding(funding_id: str, principal: CurrentPrincipal) -> FundingView:
        funding = await service.settle_funding(
            funding_id=funding_id, operator_id=_user_of(principal), now=clock.now()
        )
        return FundingView.of(funding)

    @router.post(
        "/fundings/{funding_id}/refuse",
        access=Access.roles("operator", "admin"),
        summary="End a funding with nothing moved",
        response_model=FundingView,
        errors=[FundingNotFoundError, FundingClosedError],
    )
    async def refuse_funding(funding_id: str, principal: CurrentPrincipal) -> FundingView:
        funding = await service.refuse_funding(
            funding_id=funding_id, operator_id=_user_of(principal), now=clock.now()
        )
        return FundingView.of(funding)

    return router


def _user_of(principal: Principal) -> str:
    if not principal.user_id:
        raise PermissionDeniedError("a wallet belongs to a user; act for one")
    return principal.user_id


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
