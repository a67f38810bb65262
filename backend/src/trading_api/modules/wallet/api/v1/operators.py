"""What operators do: fundings, holds, freezes, corrections, proofs."""

from datetime import timedelta
from typing import Annotated

from fastapi import Path, Query

from trading_api.kernel.clock import Clock
from trading_api.ledger.domain import EntryType
from trading_api.ledger.errors import (
    CaptureExceedsHoldError,
    EntryAlreadyReversedError,
    EntryNotFoundError,
    HoldAlreadyCapturedError,
    HoldAlreadyExpiredError,
    HoldAlreadyVoidedError,
    HoldDiffersError,
    HoldNotFoundError,
)
from trading_api.modules.wallet.api.v1.parts import (
    AMOUNT_ERRORS,
    PAGE_DEFAULT,
    FundingId,
    Limit,
    Services,
    user_of,
)
from trading_api.modules.wallet.errors import (
    CoolingOffError,
    EntryNotReversibleError,
    FundingClosedError,
    FundingNotFoundError,
    FundingUnconfirmedError,
    HoldExpiryError,
    HoldNotOursError,
    InsufficientFundsError,
    WalletFrozenError,
    WalletNotFoundError,
)
from trading_api.modules.wallet.schemas import (
    CaptureRequest,
    FrozenView,
    FundingView,
    HoldRequestBody,
    HoldView,
    LedgerEntryView,
    OperatorActView,
    ReasonRequest,
    TrialBalanceView,
    VerifyView,
    ViolationView,
)
from trading_api.runtime.http import Access, CurrentPrincipal, ModuleRouter
from trading_api.runtime.identity import Principal

_OPERATORS = Access.roles("operator", "admin")
_HOLD_ENDED = (
    HoldNotFoundError,
    HoldNotOursError,
    HoldAlreadyCapturedError,
    HoldAlreadyVoidedError,
    HoldAlreadyExpiredError,
)

Id = Annotated[str, Path(min_length=1, max_length=64)]


def add_operator_routes(router: ModuleRouter, services: Services, *, clock: Clock) -> None:
    """Declare them."""
    _add_funding_routes(router, services, clock=clock)
    add_hold_routes(router, services, clock=clock, access=_OPERATORS)

    @router.post(
        "/wallets/{wallet_id}/freeze",
        access=_OPERATORS,
        summary="Stop a wallet's customer from moving anything",
        response_model=FrozenView,
        errors=[WalletNotFoundError],
    )
    async def freeze(
        wallet_id: Id, request: ReasonRequest, principal: CurrentPrincipal
    ) -> FrozenView:
        wallet = await services.operations.freeze(
            wallet_id=wallet_id,
            reason=request.reason,
            operator_id=user_of(principal),
            now=clock.now(),
        )
        return FrozenView.of(wallet)

    @router.post(
        "/wallets/{wallet_id}/unfreeze",
        access=_OPERATORS,
        summary="Let a wallet's customer move money again",
        response_model=FrozenView,
        errors=[WalletNotFoundError],
    )
    async def unfreeze(wallet_id: Id, principal: CurrentPrincipal) -> FrozenView:
        wallet = await services.operations.unfreeze(
            wallet_id=wallet_id, operator_id=user_of(principal), now=clock.now()
        )
        return FrozenView.of(wallet)

    @router.get(
        "/acts",
        access=_OPERATORS,
        summary="Who held, froze or reversed, newest first",
        response_model=list[OperatorActView],
    )
    async def list_acts(
        subject: Annotated[
            str | None, Query(max_length=64, description="only on this hold, wallet or entry")
        ] = None,
        limit: Limit = PAGE_DEFAULT,
    ) -> list[OperatorActView]:
        found = await services.operations.list_acts(subject=subject, limit=limit)
        return [OperatorActView.of(each) for each in found]

    @router.post(
        "/entries/{entry_id}/reverse",
        access=_OPERATORS,
        summary="Undo an entry by its mirror image, once",
        status_code=201,
        response_model=LedgerEntryView,
        errors=[
            EntryNotFoundError,
            EntryNotReversibleError,
            EntryAlreadyReversedError,
            InsufficientFundsError,
        ],
    )
    async def reverse_entry(
        entry_id: Id, request: ReasonRequest, principal: CurrentPrincipal
    ) -> LedgerEntryView:
        posted = await services.operations.reverse_entry(
            entry_id=entry_id,
            reason=request.reason,
            operator_id=user_of(principal),
            now=clock.now(),
        )
        return LedgerEntryView.of(posted)

    @router.get(
        "/trial-balance",
        access=_OPERATORS,
        summary="Debits and credits of every book and currency",
        response_model=list[TrialBalanceView],
    )
    async def get_trial_balance() -> list[TrialBalanceView]:
        found = await services.operations.compute_trial_balance()
        return [TrialBalanceView.of(each) for each in found]

    @router.post(
        "/verify",
        access=_OPERATORS,
        summary="Prove every entry, balance, hold, transfer and hash chain from scratch",
        response_model=VerifyView,
    )
    async def verify() -> VerifyView:
        found = await services.operations.verify()
        return VerifyView(
            ok=not found.violations,
            violations=[
                ViolationView(id=each.id, subject=each.subject, message=each.message)
                for each in found.violations[:1000]
            ],
            not_checked=list(found.not_checked),
            checked_at=clock.now(),
        )


def add_hold_routes(
    router: ModuleRouter, services: Services, *, clock: Clock, access: Access, prefix: str = ""
) -> None:
    """Declare the routes of holds, for operators or for other modules."""
    options = {"include_in_schema": not prefix}

    @router.post(
        f"{prefix}/holds",
        access=access,
        summary="Set part of a wallet's balance aside",
        status_code=201,
        response_model=HoldView,
        errors=[
            *AMOUNT_ERRORS[:-2],
            HoldDiffersError,
            HoldExpiryError,
            InsufficientFundsError,
            WalletFrozenError,
        ],
        **options,
    )
    async def open_hold(request: HoldRequestBody, principal: CurrentPrincipal) -> HoldView:
        lifetime = request.expires_in_seconds
        hold = await services.operations.open_hold(
            hold_id=request.hold_id,
            user_id=request.user_id,
            amount=request.amount,
            currency=request.currency,
            reference=request.reference,
            lifetime=None if lifetime is None else timedelta(seconds=lifetime),
            by=_actor(principal),
            now=clock.now(),
        )
        return HoldView.of(hold)

    @router.post(
        f"{prefix}/holds/{{hold_id}}/capture",
        access=access,
        summary="Charge a hold, all of it or less; the rest is released",
        response_model=LedgerEntryView,
        errors=[*_HOLD_ENDED, CaptureExceedsHoldError],
        **options,
    )
    async def capture_hold(
        hold_id: Id, request: CaptureRequest, principal: CurrentPrincipal
    ) -> LedgerEntryView:
        posted = await services.operations.capture_hold(
            hold_id=hold_id,
            amount=request.amount,
            type_=EntryType(request.type),
            description=request.description,
            by=_actor(principal),
            now=clock.now(),
        )
        return LedgerEntryView.of(posted)

    @router.post(
        f"{prefix}/holds/{{hold_id}}/void",
        access=access,
        summary="Release a hold",
        response_model=HoldView,
        errors=_HOLD_ENDED,
        **options,
    )
    async def void_hold(hold_id: Id, principal: CurrentPrincipal) -> HoldView:
        ended = await services.operations.void_hold(
            hold_id=hold_id, by=_actor(principal), now=clock.now()
        )
        return HoldView.of(ended)


def _actor(principal: Principal) -> str:
    """Return the operator who asks, or the module where one does."""
    is_module = principal.carrier == "service"
    return principal.session_id if is_module else user_of(principal)


def _add_funding_routes(router: ModuleRouter, services: Services, *, clock: Clock) -> None:
    service = services.wallets

    @router.get(
        "/fundings",
        access=_OPERATORS,
        summary="Deposits and withdrawals that wait for an operator, oldest first",
        response_model=list[FundingView],
    )
    async def list_fundings(limit: Limit = PAGE_DEFAULT) -> list[FundingView]:
        fundings = await service.list_pending_fundings(limit=limit)
        return [FundingView.of(funding) for funding in fundings]

    @router.post(
        "/fundings/{funding_id}/settle",
        access=_OPERATORS,
        summary="Confirm that the money of a funding came or went",
        response_model=FundingView,
        errors=[
            FundingNotFoundError,
            FundingClosedError,
            FundingUnconfirmedError,
            CoolingOffError,
        ],
    )
    async def settle_funding(funding_id: FundingId, principal: CurrentPrincipal) -> FundingView:
        funding = await service.settle_funding(
            funding_id=funding_id, operator_id=user_of(principal), now=clock.now()
        )
        return FundingView.of(funding)

    @router.post(
        "/fundings/{funding_id}/refuse",
        access=_OPERATORS,
        summary="End a funding with nothing moved",
        response_model=FundingView,
        errors=[FundingNotFoundError, FundingClosedError],
    )
    async def refuse_funding(funding_id: FundingId, principal: CurrentPrincipal) -> FundingView:
        funding = await service.refuse_funding(
            funding_id=funding_id, operator_id=user_of(principal), now=clock.now()
        )
        return FundingView.of(funding)
