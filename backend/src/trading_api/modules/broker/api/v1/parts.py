"""What the routes of v1 share: parameters, declared errors and headers, answers."""

from typing import Annotated, Any

from fastapi import Depends, Header, Query
from fastapi import Path as PathParameter
from pydantic import BeforeValidator
from starlette.responses import Response

from trading_api.kernel.errors import (
    FieldError,
    IdempotencyKeyReusedError,
    InvalidInputError,
    PermissionDeniedError,
    RequestInProgressError,
)
from trading_api.modules.broker.domain.account import Account
from trading_api.modules.broker.domain.instrument import full_symbol
from trading_api.modules.broker.errors import (
    AccountNotFoundError,
    ClientOrderIdReusedError,
    ExposureLimitError,
    InstrumentNotTradableError,
    InstrumentUnknownError,
    InsufficientMarginError,
    MarketClosedError,
    MarketUnavailableError,
    OpenOrdersLimitError,
    OrderInvalidError,
    OrderRateError,
    PositionLimitError,
    PostOnlyError,
    PriceBandError,
    ReduceOnlyError,
    StaleQuoteError,
    TradingHaltedError,
    TradingReduceOnlyError,
)
from trading_api.modules.broker.schemas import (
    encode,
)
from trading_api.runtime.http import Access, OptionalPrincipal
from trading_api.runtime.http.wire import Symbol
from trading_api.runtime.identity import Principal

POSITION_ID_PATTERN = r"^(pos_[a-z0-9]{1,60}|[A-Z0-9][A-Z0-9._:/-]{0,31})$"
PAGE_DEFAULT = 100
PAGE_MAX = 1000
EVENTS_MAX = 1000

AccountIdText = Annotated[str, PathParameter(alias="accountId", min_length=1, max_length=64)]
OrderIdText = Annotated[str, PathParameter(alias="orderId", min_length=1, max_length=64)]
PositionIdText = Annotated[
    str,
    BeforeValidator(lambda value: position_id_of(value) if isinstance(value, str) else value),
    PathParameter(
        alias="positionId",
        pattern=POSITION_ID_PATTERN,
        description="the symbol, such as `DEMO:AAPL`; on a hedging account the position's own id",
    ),
]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="rows at most")]
CursorText = Annotated[
    str | None,
    Query(min_length=1, max_length=512, description="the page before told it"),
]
SymbolFilter = Annotated[Symbol | None, Query(description="only this instrument")]


def guarded(principal: Principal | None, account_id: str | None) -> str | None:
    """Return the account that is meant, which for a guest with a share token is the shared one.

    Raises:
        AccountNotFoundError: the guest names another.
    """
    shared = None if principal is None else principal.account_id
    if shared is None:
        return account_id
    if account_id not in (None, shared):
        raise AccountNotFoundError("there is no such trading account")
    return shared


async def _account_of(
    principal: OptionalPrincipal,
    by_query: Annotated[
        str | None,
        Query(alias="accountId", min_length=1, max_length=64, description="the trading account"),
    ] = None,
    by_header: Annotated[
        str | None, Header(alias="X-Account-Id", min_length=1, max_length=64)
    ] = None,
) -> str | None:
    if by_query is not None and by_header is not None and by_query != by_header:
        message = "the query and the header X-Account-Id name two accounts"
        raise InvalidInputError(message, errors=[FieldError("accountId", "disagree", message)])
    return guarded(principal, by_query or by_header)


async def _account_in_path(principal: OptionalPrincipal, account_id: AccountIdText) -> str:
    guarded(principal, account_id)
    return account_id


AccountId = Annotated[str | None, Depends(_account_of)]
PathAccountId = Annotated[str, Depends(_account_in_path)]
"""The account in the path, checked against what a guest may see."""

READ = Access.scope("broker:read")
SHARED = Access.scope("broker:read", shared=True)
"""Guests too; the route takes its account from ``AccountId`` or ``PathAccountId`` alone."""

TRADE = Access.scope("broker:trade")
ORDER_ERRORS = (
    AccountNotFoundError,
    ClientOrderIdReusedError,
    ExposureLimitError,
    IdempotencyKeyReusedError,
    InstrumentNotTradableError,
    InstrumentUnknownError,
    InsufficientMarginError,
    MarketClosedError,
    MarketUnavailableError,
    OpenOrdersLimitError,
    OrderInvalidError,
    OrderRateError,
    PositionLimitError,
    PriceBandError,
    PostOnlyError,
    ReduceOnlyError,
    RequestInProgressError,
    StaleQuoteError,
    TradingHaltedError,
    TradingReduceOnlyError,
)
REPLAYED: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Idempotent-Replayed": {
                "description": "`true` on the answer to a repeat",
                "schema": {"type": "string"},
            }
        }
    }
}
NEXT_CURSOR: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "X-Next-Cursor": {
                "description": "`cursor` of the next page; absent on the last",
                "schema": {"type": "string"},
            }
        }
    }
}
OFFSETS: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "X-Account-Epoch": {
                "description": "changes when the sequence starts anew",
                "schema": {"type": "string"},
            },
            "X-Account-Offset": {
                "description": "number of the account's newest event",
                "schema": {"type": "integer"},
            },
        }
    }
}


def user_of(principal: Principal) -> str:
    """Return whose accounts are meant.

    Raises:
        PermissionDeniedError: the caller is no user and acts for none.
    """
    if not principal.user_id:
        raise PermissionDeniedError("a trading account belongs to a user; act for one")
    return principal.user_id


def json_of(
    view: Any, headers: dict[str, str] | None = None, *, status_code: int = 200
) -> Response:
    """Answer a view as JSON that nobody caches."""
    return Response(
        encode(view),
        status_code=status_code,
        headers={"Cache-Control": "no-store", **(headers or {})},
        media_type="application/json",
    )


def replayed(is_replay: bool) -> dict[str, str]:
    """Return the header that tells an answer to a repeat."""
    return {"Idempotent-Replayed": "true"} if is_replay else {}


def offsets(account: Account) -> dict[str, str]:
    """Return the headers that tell where the account's events stand."""
    return {
        "X-Account-Epoch": account.epoch,
        "X-Account-Offset": str(account.event_sequence),
    }


def position_id_of(text: str) -> str:
    """Return the id of a position as it is stored: full symbols, or a position's own id."""
    return text if text.startswith("pos_") else full_symbol(text.upper())
