"""The sandbox: settles itself with invented money, in the demo book only."""

from trading_api.ledger.domain import Book


class SandboxRail:
    """Every deposit and withdrawal succeeds at once; refused in production by the settings."""

    name = "sandbox"
    book = Book.DEMO
    settles_itself = True
