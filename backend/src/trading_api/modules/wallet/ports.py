"""What the wallet needs from outside: ways for money to come and go, accounts, prices."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from trading_api.kernel.values import Currency
from trading_api.ledger.domain import Book
from trading_api.modules.wallet.domain.exchange import Rate
from trading_api.modules.wallet.domain.transfer import Transfer


class PaymentRail(Protocol):
    """A way over the platform's border.

    A rail that settles itself is asked nothing: the money moves with the request. On any other the
    funding waits, a withdrawal's amount held, until somebody confirms or refuses it. Third parties
    bring theirs by an entry point of the group `trading_api.payment_rails`, a callable without
    arguments.
    """

    @property
    def name(self) -> str:
        """Return the rail's name, part of the world account's id."""

    @property
    def book(self) -> Book:
        """Return the book of the wallets it serves; demo money never mixes with funded."""

    @property
    def settles_itself(self) -> bool:
        """Tell whether money moves at once."""


@dataclass(frozen=True, slots=True)
class TradingCash:
    """Whose a trading account is, and what may leave it now.

    Attributes:
        withdrawable_minor: In minor units of the currency.
    """

    account_id: str
    book: str
    currency: Currency
    withdrawable_minor: int


class AccountSide(StrEnum):
    """Where a transfer stands at the trading account."""

    CREDITED = "credited"
    REFUSED = "refused"
    HELD = "held"
    CAPTURED = "captured"
    VOIDED = "voided"


class TradingAccounts(Protocol):
    """The trading accounts' half of transfers; every step is idempotent under the transfer's id.

    Each raises `TransferRefusedError` where the step is refused for good, and `UnavailableError`
    where nobody knows whether it was taken.
    """

    async def get_cash(self, *, account_id: str, user_id: str) -> TradingCash:
        """Return an account of that user; advice only."""

    async def credit(self, transfer: Transfer) -> AccountSide:
        """Add the amount to the account: CREDITED, or REFUSED by a tombstone before."""

    async def refuse(self, transfer: Transfer) -> AccountSide:
        """Close the account to the transfer for ever: REFUSED, or CREDITED if it had it."""

    async def hold(self, transfer: Transfer) -> AccountSide:
        """Set the amount aside: HELD, or VOIDED by a tombstone before, or CAPTURED before."""

    async def capture(self, transfer: Transfer) -> AccountSide:
        """Take what is held: CAPTURED."""

    async def void(self, transfer: Transfer) -> AccountSide:
        """Release what is held and refuse for ever: VOIDED, or CAPTURED if it was."""

    async def find_states(
        self, transfer_ids: Collection[str]
    ) -> tuple[Mapping[str, int], Mapping[str, AccountSide]]:
        """Return clearing balances by `book:currency`, credit positive, and transfers' states."""


class RateSource(Protocol):
    """Where prices of currencies come from."""

    async def list_rates(self) -> list[Rate]:
        """Return the newest price of every pair of currencies that is quoted.

        Raises:
            UnavailableError: Prices can't be had right now.
        """
