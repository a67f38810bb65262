"""Trading accounts as broker serves them to other modules."""

from collections.abc import Collection, Mapping
from typing import Any

import httpx
from pydantic import ValidationError

from trading_api.contracts import broker as contract
from trading_api.kernel.errors import TradingError, UnavailableError
from trading_api.kernel.values import Currency
from trading_api.modules.wallet.domain.transfer import Transfer, TransferDirection
from trading_api.modules.wallet.errors import (
    BooksDifferError,
    CurrencyDiffersError,
    InsufficientCashError,
    TradingAccountNotFoundError,
    TransferRefusedError,
)
from trading_api.modules.wallet.ports import AccountSide, TradingCash
from trading_api.runtime.peers import PeerClient

_PREFIX = "/internal/v1/broker"

_REFUSALS: Mapping[str, type[TradingError]] = {
    "broker.account.not_found": TradingAccountNotFoundError,
    "broker.transfer.books_differ": BooksDifferError,
    "broker.transfer.currency_differs": CurrencyDiffersError,
    "broker.transfer.insufficient_cash": InsufficientCashError,
}
"""What broker refuses for good, in this module's words."""

_NUMBERS = ("required", "available", "currency")


class BrokerAccounts:
    """Asks broker over its internal routes."""

    def __init__(self, client: PeerClient) -> None:
        self._client = client

    async def get_cash(self, *, account_id: str, user_id: str) -> TradingCash:
        """Return an account of that user."""
        response = await self._client.get(
            f"{_PREFIX}/accounts/{account_id}/cash", params={"user_id": user_id}
        )
        found = _read(response, contract.CashAnswer)
        return TradingCash(
            account_id=found.account_id,
            book=found.book,
            currency=Currency(found.currency, found.scale),
            withdrawable_minor=found.withdrawable_minor,
        )

    async def credit(self, transfer: Transfer) -> AccountSide:
        """Add the amount to the account."""
        return await self._step("credit", transfer)

    async def refuse(self, transfer: Transfer) -> AccountSide:
        """Close the account to the transfer for ever."""
        return await self._step("refuse", transfer)

    async def hold(self, transfer: Transfer) -> AccountSide:
        """Set the amount aside."""
        return await self._step("hold", transfer)

    async def capture(self, transfer: Transfer) -> AccountSide:
        """Take what is held."""
        return await self._step("capture", transfer)

    async def void(self, transfer: Transfer) -> AccountSide:
        """Release what is held, and refuse for ever."""
        return await self._step("void", transfer)

    async def find_states(
        self, transfer_ids: Collection[str]
    ) -> tuple[Mapping[str, int], Mapping[str, AccountSide]]:
        """Return clearing balances and the states of transfers."""
        response = await self._client.get(
            f"{_PREFIX}/transfers", params={"ids": ",".join(sorted(transfer_ids))}
        )
        found = _read(response, contract.TransferStates)
        states = {each: AccountSide(state) for each, state in found.states.items()}
        return found.clearing_minor, states

    async def _step(self, step: str, transfer: Transfer) -> AccountSide:
        is_in = transfer.direction is TransferDirection.TO_ACCOUNT
        amount = transfer.amount
        order = contract.TransferOrder(
            direction="in" if is_in else "out",
            account_id=transfer.account_id,
            user_id=transfer.user_id,
            book=transfer.book.value,
            currency=amount.currency.code,
            scale=amount.currency.scale,
            amount_minor=amount.minor,
        )
        response = await self._client.post(
            f"{_PREFIX}/transfers/{transfer.transfer_id}/{step}",
            json=order.model_dump(mode="json"),
            acting_for=transfer.user_id,
        )
        return AccountSide(_read(response, contract.TransferAnswer).state)


def _read(response: httpx.Response, shape: Any) -> Any:
    if response.status_code == 200:
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            raise _not_understood(response) from error
    try:
        problem = response.json()
    except ValueError as error:
        raise _not_understood(response) from error
    refusal = _REFUSALS.get(problem.get("code", "")) if isinstance(problem, dict) else None
    if refusal is None:
        # Not a refusal of the transfer itself: the step may have been taken, or may be later.
        raise _not_understood(response)
    numbers = problem.get("context") or {}
    context: dict[str, Any] = {each: str(numbers[each]) for each in _NUMBERS if each in numbers}
    message = str(problem.get("detail") or refusal.title)
    raise TransferRefusedError(refusal(message, **context))


def _not_understood(response: httpx.Response) -> UnavailableError:
    return UnavailableError(
        "the trading accounts don't answer as expected",
        retry_after_seconds=1,
        module="broker",
        status=response.status_code,
    )
