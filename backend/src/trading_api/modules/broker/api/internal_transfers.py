"""What wallet asks of trading accounts; internal, so nginx routes no such path."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import Path, Query

from trading_api.contracts.broker import (
    CashAnswer,
    TransferAnswer,
    TransferOrder,
    TransferStates,
)
from trading_api.kernel.clock import Clock
from trading_api.kernel.values import Currency, Money
from trading_api.modules.broker.domain.transfer import Transfer, TransferState
from trading_api.modules.broker.errors import (
    AccountNotFoundError,
    InsufficientCashError,
    TransferBooksError,
    TransferCurrencyError,
    TransferDiffersError,
    TransferStateError,
)
from trading_api.modules.broker.service.transfers import TransferService
from trading_api.runtime.http import Access, ModuleRouter

PREFIX = "/internal/v1/broker"
IDS_MAX = 1000

TransferId = Annotated[str, Path(min_length=1, max_length=64)]
Step = Callable[..., Awaitable[TransferState]]


def build_router(service: TransferService, *, clock: Clock) -> ModuleRouter:
    """Declare the routes."""
    router = ModuleRouter(tags=["internal"])
    internal: dict[str, Any] = {"access": Access.internal(), "include_in_schema": False}

    @router.get(
        f"{PREFIX}/accounts/{{account_id}}/cash", response_model=CashAnswer,
        errors=[AccountNotFoundError], **internal,
    )  # fmt: skip
    async def get_cash(
        account_id: Annotated[str, Path(min_length=1, max_length=64)],
        user_id: Annotated[str, Query(min_length=1, max_length=64)],
    ) -> CashAnswer:
        cash = await service.get_cash(account_id=account_id, user_id=user_id, now=clock.now())
        account = cash.account
        return CashAnswer(
            account_id=account.account_id,
            user_id=account.user_id,
            book=account.book,
            currency=account.currency.code,
            scale=account.currency.scale,
            withdrawable_minor=cash.withdrawable_minor,
        )

    @router.get(f"{PREFIX}/transfers", response_model=TransferStates, **internal)
    async def list_states(
        ids: Annotated[str, Query(max_length=64 * IDS_MAX, description="comma list")] = "",
    ) -> TransferStates:
        wanted = [each for each in ids.split(",") if each][:IDS_MAX]
        clearing, states = await service.find_states(transfer_ids=wanted)
        return TransferStates(clearing_minor=clearing, states=states)

    def declare(name: str, step: Step, state: TransferState) -> None:
        @router.post(
            f"{PREFIX}/transfers/{{transfer_id}}/{name}",
            response_model=TransferAnswer,
            errors=[
                AccountNotFoundError,
                InsufficientCashError,
                TransferBooksError,
                TransferCurrencyError,
                TransferDiffersError,
                TransferStateError,
            ],
            **internal,
        )
        async def take_step(transfer_id: TransferId, order: TransferOrder) -> TransferAnswer:
            now = clock.now()
            reached = await step(transfer=_transfer_of(transfer_id, order, state, now), now=now)
            return TransferAnswer(transfer_id=transfer_id, state=reached.value)

    declare("credit", service.credit, TransferState.CREDITED)
    declare("refuse", service.refuse, TransferState.REFUSED)
    declare("hold", service.hold, TransferState.HELD)
    declare("capture", service.capture, TransferState.CAPTURED)
    declare("void", service.void, TransferState.VOIDED)
    return router


def _transfer_of(
    transfer_id: str, order: TransferOrder, state: TransferState, now: datetime
) -> Transfer:
    return Transfer(
        transfer_id=transfer_id,
        account_id=order.account_id,
        user_id=order.user_id,
        book=order.book,
        direction=order.direction,
        amount=Money(order.amount_minor, Currency(order.currency, order.scale)),
        state=state,
        created_at=now,
        closed_at=None if state is TransferState.HELD else now,
    )
