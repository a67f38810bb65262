"""By hand: an operator sees the money arrive or sends it, then confirms."""

from trading_api.ledger.domain import Book


class ManualRail:
    """Every deposit and withdrawal waits for an operator."""

    name = "manual"
    book = Book.FUNDED
    settles_itself = False
