"""Routes of accounts, their worth and their events."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import (
    IdempotencyKeyReusedError,
    RequestInProgressError,
)
from trading_api.modules.broker.api.v1.parts import (
    EVENTS_MAX,
    OFFSETS,
    SHARED,
    TRADE,
    AccountId,
    PathAccountId,
    guarded,
    json_of,
    offsets,
    replayed,
    user_of,
)
from trading_api.modules.broker.errors import (
    AccountCurrencyError,
    AccountLimitError,
    AccountNotFoundError,
    EventsGoneError,
)
from trading_api.modules.broker.schemas import (
    AccountRequest,
    AccountView,
    EventView,
    StateView,
)
from trading_api.modules.broker.service import AccountService, ReportService
from trading_api.runtime.http import CurrentPrincipal, IdempotencyKey, ModuleRouter


def add_accounts(
    router: ModuleRouter, accounts: AccountService, reports: ReportService, clock: Clock
) -> None:
    """Declare the routes of accounts."""

    @router.get(
        "/account",
        access=SHARED,
        summary="The account and what it is worth",
        response_model=StateView,
        errors=[AccountNotFoundError],
    )
    async def get_account(principal: CurrentPrincipal, account_id: AccountId) -> Response:
        report = await reports.get_state(
            user_id=user_of(principal), account_id=account_id, now=clock.now()
        )
        return json_of(StateView.of(report))

    @router.get(
        "/accounts",
        access=SHARED,
        summary="The user's trading accounts, the first one first",
        response_model=list[AccountView],
    )
    async def list_accounts(principal: CurrentPrincipal) -> Response:
        found = await accounts.list_accounts(user_id=user_of(principal), now=clock.now())
        shared = guarded(principal, None)
        return json_of(
            [AccountView.of(each) for each in found if shared in (None, each.account_id)]
        )

    @router.post(
        "/accounts",
        access=TRADE,
        status_code=201,
        summary="Open a further paper account",
        response_model=AccountView,
        errors=[
            AccountCurrencyError,
            AccountLimitError,
            IdempotencyKeyReusedError,
            RequestInProgressError,
        ],
    )
    async def open_account(
        request: AccountRequest,
        principal: CurrentPrincipal,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        account, is_replay = await accounts.open_account(
            user_id=user_of(principal),
            name=request.name,
            currency_code=request.currency,
            position_mode=request.position_mode,
            idempotency_key=idempotency_key,
            now=clock.now(),
        )
        return json_of(AccountView.of(account), replayed(is_replay), status_code=201)

    @router.get(
        "/accounts/{accountId}/state",
        access=SHARED,
        summary="What an account is worth, marked to the newest quotes",
        response_model=StateView,
        errors=[AccountNotFoundError],
    )
    async def get_state(account_id: PathAccountId, principal: CurrentPrincipal) -> Response:
        report = await reports.get_state(
            user_id=user_of(principal), account_id=account_id, now=clock.now()
        )
        return json_of(StateView.of(report))

    @router.get(
        "/accounts/{accountId}/events",
        rate="history",
        access=SHARED,
        summary="The account's gapless events behind a number, oldest first",
        response_model=list[EventView],
        responses=OFFSETS,
        errors=[AccountNotFoundError, EventsGoneError],
    )
    async def list_events(
        account_id: PathAccountId,
        principal: CurrentPrincipal,
        since: Annotated[int, Query(ge=0, le=2**53, description="the last number seen")] = 0,
        limit: Annotated[int, Query(ge=1, le=EVENTS_MAX, description="events at most")] = 200,
    ) -> Response:
        account, events = await reports.list_events(
            user_id=user_of(principal),
            account_id=account_id,
            since=since,
            limit=limit,
            now=clock.now(),
        )
        return json_of([EventView.of(each) for each in events], offsets(account))
