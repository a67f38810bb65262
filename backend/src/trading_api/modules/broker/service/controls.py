"""Kill switches: of one account, and of the whole platform. Only operators turn them."""

from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import structlog

from trading_api.contracts.broker import AccountRestricted
from trading_api.modules.broker.domain.account import Account, TradingState
from trading_api.modules.broker.domain.event import Notice, NoticeCode
from trading_api.modules.broker.errors import AccountNotFoundError
from trading_api.modules.broker.service.desk import Books, Desk
from trading_api.runtime.database import Database, Transaction

log = structlog.get_logger("broker")

_TEXTS = {
    TradingState.ACTIVE: "Trading is open again",
    TradingState.REDUCE_ONLY: "Only orders that close positions are taken",
    TradingState.HALTED: "Trading is halted; open orders can be canceled",
}


@dataclass(frozen=True, slots=True)
class PlatformControl:
    """The platform's kill switch.

    Attributes:
        reason: what the operator wrote; "" before anybody turned it.
        changed_by: user id; "" before anybody turned it.
        changed_at: UTC; None before anybody turned it.
    """

    state: TradingState = TradingState.ACTIVE
    reason: str = ""
    changed_by: str = ""
    changed_at: datetime | None = None


class ControlService:
    """Turns kill switches; orders see them inside the transaction that accepts them."""

    def __init__(self, *, database: Database, books: Books) -> None:
        self._database = database
        self._books = books

    async def get_platform(self) -> PlatformControl:
        """Return the platform's kill switch."""
        async with self._database.snapshot() as snapshot:
            found = await self._books.repository.find_platform_control(snapshot)
        return PlatformControl() if found is None else PlatformControl(*found)

    async def set_platform(
        self, *, state: TradingState, reason: str, operator_id: str, now: datetime
    ) -> PlatformControl:
        """Turn the platform's kill switch; holds for every order whose account is locked later."""

        async def command(transaction: Transaction) -> None:
            await self._books.repository.save_platform_control(
                transaction, state=state, reason=reason, changed_by=operator_id, changed_at=now
            )
            transaction.after_commit(
                partial(
                    log.warning,
                    "platform_switch_turned",
                    state=state.value,
                    reason=reason,
                    operator_id=operator_id,
                )
            )

        await self._database.group(command)
        return PlatformControl(state, reason, operator_id, now)

    async def set_account(
        self,
        *,
        account_id: str,
        state: TradingState,
        reason: str,
        operator_id: str,
        now: datetime,
    ) -> Account:
        """Turn an account's kill switch and tell its owner; a repeat changes nothing.

        Raises:
            AccountNotFoundError: there is no such account, whoever's.
        """

        async def command(transaction: Transaction) -> Account:
            desk = await Desk.open(self._books, transaction, account_id, now)
            if desk is None:
                raise AccountNotFoundError("there is no such trading account")
            if desk.account.trading_state is state:
                return desk.account
            desk.account = replace(desk.account, trading_state=state)
            desk.record(
                Notice(
                    account_id,
                    NoticeCode.TRADING_STATE,
                    is_error=state is not TradingState.ACTIVE,
                    text=f"{_TEXTS[state]}: {reason}",
                    numbers={"state": state.value},
                )
            )
            await desk.publish(
                AccountRestricted(
                    account_id=account_id,
                    user_id=desk.account.user_id,
                    offset=desk.account.event_sequence,
                    state=state.value,
                    reason=reason,
                )
            )
            await desk.close()
            transaction.after_commit(
                partial(
                    log.warning,
                    "account_switch_turned",
                    account_id=account_id,
                    state=state.value,
                    reason=reason,
                    operator_id=operator_id,
                )
            )
            return desk.account

        return await self._database.group(command, key=account_id)
