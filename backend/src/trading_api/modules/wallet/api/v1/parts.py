"""What the routes share: parameters, error lists, who is asking."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Path, Query

from trading_api.kernel.errors import (
    AmountOutOfRangeError,
    IdempotencyKeyReusedError,
    PermissionDeniedError,
    RequestInProgressError,
)
from trading_api.modules.wallet.errors import (
    AmountAboveMaximumError,
    AmountBelowMinimumError,
    AmountNotExactError,
    AmountNotPositiveError,
    CurrencyNotSupportedError,
)
from trading_api.modules.wallet.service import (
    ExchangeService,
    OperationsService,
    StatementService,
    TransferService,
    WalletService,
)
from trading_api.runtime.identity import Principal

PAGE_DEFAULT = 50
PAGE_MAX = 500

Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="rows at most")]
CurrencyCode = Annotated[
    str | None, Query(min_length=1, max_length=12, description="only this currency")
]
Cursor = Annotated[
    str | None, Query(max_length=512, description="`X-Next-Cursor` of the page before")
]
FundingId = Annotated[str, Path(min_length=1, max_length=64)]

AMOUNT_ERRORS = (
    AmountNotPositiveError,
    AmountNotExactError,
    AmountOutOfRangeError,
    AmountBelowMinimumError,
    AmountAboveMaximumError,
    CurrencyNotSupportedError,
    IdempotencyKeyReusedError,
    RequestInProgressError,
)
NEXT_CURSOR = {
    200: {
        "headers": {
            "X-Next-Cursor": {
                "description": "`cursor` of the next page; absent on the last",
                "schema": {"type": "string"},
            }
        }
    }
}


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases behind the routes."""

    wallets: WalletService
    transfers: TransferService
    exchange: ExchangeService
    statements: StatementService
    operations: OperationsService


def user_of(principal: Principal) -> str:
    """Return whose wallet is meant.

    Raises:
        PermissionDeniedError: A module asks for nobody.
    """
    if not principal.user_id:
        raise PermissionDeniedError("a wallet belongs to a user; act for one")
    return principal.user_id
