"""Statements: what a wallet held before a range, every line in it, what it held after; proven."""

from dataclasses import dataclass
from datetime import datetime

from trading_api.kernel.errors import FieldError
from trading_api.kernel.values import Currency, Money
from trading_api.ledger.engine import StatementLine
from trading_api.modules.wallet.domain import Wallet, currency_asked
from trading_api.modules.wallet.errors import RangeInvertedError, StatementTooLongError
from trading_api.modules.wallet.service.till import Till

LINES_MAX = 10_000
"""Lines of one statement over all currencies; the answer is made in memory."""


@dataclass(frozen=True, slots=True)
class Section:
    """One currency of a statement: opening + credits - debits = closing.

    Attributes:
        credits: Sum of what grew the balance.
        debits: Sum of what took from it, as a positive amount.
        lines: Oldest first.
    """

    currency: Currency
    opening: Money
    closing: Money
    credits: Money
    debits: Money
    lines: tuple[StatementLine, ...]

    @property
    def is_proven(self) -> bool:
        """Tell whether the sums lead from the opening to the closing, and each line to the next."""
        running = self.opening
        for line in self.lines:
            running = running + line.change
            if running != line.running_balance:
                return False
        return running == self.closing and self.opening + self.credits - self.debits == self.closing


@dataclass(frozen=True, slots=True)
class Statement:
    """A wallet over a range: at or after `from_`, before `to`, by recording instant, UTC."""

    wallet: Wallet
    from_: datetime
    to: datetime
    sections: tuple[Section, ...]


class StatementService:
    """Makes statements."""

    def __init__(self, *, till: Till) -> None:
        self._till = till

    async def make_statement(
        self,
        *,
        user_id: str,
        from_: datetime | None,
        to: datetime | None,
        currency: str | None,
        now: datetime,
    ) -> Statement:
        """Make a statement of a user's wallet, every balance from one snapshot.

        The closing balance comes from the account as it stands, less what came after the range;
        the sums come from the lines: that both agree is the proof.

        Args:
            user_id: Whose wallet.
            from_: The wallet's opening where None.
            to: Now where None.
            currency: Only this one; None for all.
            now: UTC.

        Raises:
            RangeInvertedError: `from_` lies after `to`.
            StatementTooLongError: More than 10,000 lines; ask for less time.
            CurrencyNotSupportedError: Wallets here do not hold that currency.
        """
        only = None if currency is None else currency_asked(currency, self._till.currencies)
        await self._till.ensure_wallet(user_id, now)
        ledger = self._till.ledger
        async with self._till.database.snapshot() as snapshot:
            wallet = await self._till.get_wallet(snapshot, user_id)
            begin, end = from_ or wallet.created_at, to or now
            if begin > end:
                message = "`from` must not lie after `to`"
                raise RangeInvertedError(message, errors=[FieldError("from", "inverted", message)])
            owned = await ledger.list_balances(snapshot, wallet.wallet_id)
            lines = await ledger.list_entries(
                snapshot,
                [account.account_id for account, _ in owned if only in (None, account.currency)],
                limit=LINES_MAX + 1,
                from_=begin,
                to=end,
            )
            if len(lines) > LINES_MAX:
                message = f"a statement has at most {LINES_MAX} lines; ask for less time"
                raise StatementTooLongError(
                    message,
                    errors=[FieldError("from", "too_long", message)],
                    lines_max=LINES_MAX,
                )
            sections = []
            for account, balance in owned:
                if only not in (None, account.currency):
                    continue
                zero = Money(0, account.currency)
                later = await ledger.sum_changes(snapshot, [account.account_id], from_=end)
                own = tuple(
                    line for line in reversed(lines) if line.account_id == account.account_id
                )
                closing = balance.total - sum(later.values(), start=zero)
                changes = sum((line.change for line in own), start=zero)
                sections.append(
                    Section(
                        currency=account.currency,
                        opening=closing - changes,
                        closing=closing,
                        credits=sum((x.change for x in own if zero < x.change), start=zero),
                        debits=-sum((x.change for x in own if x.change < zero), start=zero),
                        lines=own,
                    )
                )
        return Statement(wallet, begin, end, tuple(sections))
