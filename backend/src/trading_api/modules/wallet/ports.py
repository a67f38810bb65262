"""What the wallet needs from outside: a way for money to come and go."""

from typing import Protocol

from trading_api.ledger.domain import Book


class PaymentRail(Protocol):
    """A way over the platform's border.

    A rail that settles itself is asked nothing: the money moves with the request. On any other the
    funding waits, a withdrawal's amount held, until somebody confirms or refuses it.
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
