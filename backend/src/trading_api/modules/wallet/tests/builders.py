"""Fakes of what the wallet asks other modules for; both behave as the real ones are declared to."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import UnavailableError
from trading_api.kernel.values import currency
from trading_api.modules.wallet.domain import Rate, Transfer
from trading_api.modules.wallet.errors import (
    InsufficientCashError,
    TradingAccountNotFoundError,
    TransferRefusedError,
)
from trading_api.modules.wallet.ports import AccountSide, TradingCash

ACCOUNT = "acc_alice"


@dataclass
class FakeAccounts:
    """One trading account in memory, with a clearing account beside it.

    Attributes:
        cash_minor: what it has.
        fails: told (step, "before" or "after"); True loses the question or the answer.
    """

    cash_minor: int = 0
    held_minor: int = 0
    clearing_minor: int = 0
    user_id: str = "usr_alice"
    book: str = "demo"
    code: str = "USD"
    states: dict[str, AccountSide] = field(default_factory=dict)
    fails: Callable[[str, str], bool] = lambda _step, _when: False
    asked: list[str] = field(default_factory=list)

    async def get_cash(self, *, account_id: str, user_id: str) -> TradingCash:
        self._lose("get_cash", "before")
        if account_id != ACCOUNT or user_id != self.user_id:
            raise TransferRefusedError(TradingAccountNotFoundError("no such account"))
        return TradingCash(
            account_id, self.book, currency(self.code), self.cash_minor - self.held_minor
        )

    async def credit(self, transfer: Transfer) -> AccountSide:
        self._lose("credit", "before")
        if transfer.transfer_id not in self.states:
            if transfer.account_id != ACCOUNT:
                raise TransferRefusedError(TradingAccountNotFoundError("no such account"))
            self.states[transfer.transfer_id] = AccountSide.CREDITED
            self.cash_minor += transfer.amount.minor
            self.clearing_minor -= transfer.amount.minor
        return self._answer("credit", transfer)

    async def refuse(self, transfer: Transfer) -> AccountSide:
        self._lose("refuse", "before")
        self.states.setdefault(transfer.transfer_id, AccountSide.REFUSED)
        return self._answer("refuse", transfer)

    async def hold(self, transfer: Transfer) -> AccountSide:
        self._lose("hold", "before")
        if transfer.transfer_id not in self.states:
            amount = transfer.amount
            if self.cash_minor - self.held_minor < amount.minor:
                raise TransferRefusedError(
                    InsufficientCashError("not enough", required=str(amount), available="0.00")
                )
            self.states[transfer.transfer_id] = AccountSide.HELD
            self.held_minor += amount.minor
        return self._answer("hold", transfer)

    async def capture(self, transfer: Transfer) -> AccountSide:
        self._lose("capture", "before")
        if self.states[transfer.transfer_id] is AccountSide.HELD:
            self.states[transfer.transfer_id] = AccountSide.CAPTURED
            self.cash_minor -= transfer.amount.minor
            self.held_minor -= transfer.amount.minor
            self.clearing_minor += transfer.amount.minor
        assert self.states[transfer.transfer_id] is AccountSide.CAPTURED
        return self._answer("capture", transfer)

    async def void(self, transfer: Transfer) -> AccountSide:
        self._lose("void", "before")
        found = self.states.get(transfer.transfer_id)
        if found is AccountSide.HELD:
            self.held_minor -= transfer.amount.minor
        if found is not AccountSide.CAPTURED:
            self.states[transfer.transfer_id] = AccountSide.VOIDED
        return self._answer("void", transfer)

    async def find_states(
        self, transfer_ids: Collection[str]
    ) -> tuple[Mapping[str, int], Mapping[str, AccountSide]]:
        self._lose("find_states", "before")
        return (
            {f"{self.book}:{self.code}": self.clearing_minor},
            {each: self.states[each] for each in transfer_ids if each in self.states},
        )

    def _answer(self, step: str, transfer: Transfer) -> AccountSide:
        self._lose(step, "after")
        return self.states[transfer.transfer_id]

    def _lose(self, step: str, when: str) -> None:
        self.asked.append(f"{step} {when}")
        if self.fails(step, when):
            raise UnavailableError("no answer")


class FakeRates:
    """EURUSD at 1.0990 / 1.1010, as old as asked."""

    def __init__(self, clock: Clock, *, age: timedelta = timedelta(0)) -> None:
        self.clock = clock
        self.age = age
        self.is_demo = True

    async def list_rates(self) -> list[Rate]:
        at = self.clock.now() - self.age
        return [Rate("DEMO:EURUSD", "EUR", "USD", 109_900, 110_100, 5, at, self.is_demo)]
