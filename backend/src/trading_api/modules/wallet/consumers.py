"""What other modules' facts and the time that passes do to wallets."""

import asyncio
from collections.abc import Sequence

from trading_api.contracts.auth import UserRegistered
from trading_api.contracts.envelope import Envelope
from trading_api.kernel.clock import Clock
from trading_api.modules.wallet.service import OperationsService, TransferService, WalletService
from trading_api.runtime.database import Lease
from trading_api.runtime.module import Consumer

SWEEP_SECONDS = 1.0


def build_consumers(service: WalletService, *, clock: Clock) -> Sequence[Consumer]:
    """Declare the handlers."""

    async def open_wallet(envelope: Envelope, event: UserRegistered) -> None:
        await service.open_wallet(user_id=event.user_id, event_id=envelope.id, now=clock.now())

    return [Consumer(producer="auth", event=UserRegistered, handle=open_wallet)]


class Sweeper:
    """Carries on what was left open: transfers of a killed process, holds and fundings overdue."""

    def __init__(
        self,
        *,
        wallets: WalletService,
        transfers: TransferService,
        operations: OperationsService,
        clock: Clock,
    ) -> None:
        self._wallets = wallets
        self._transfers = transfers
        self._operations = operations
        self._clock = clock

    async def run(self, _lease: Lease | None) -> None:
        """Sweep every second until cancelled; every step is harmless beside another instance's."""
        while True:
            await self.sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Take one turn: all three at once, so that none waits for another or fails with it."""
        now = self._clock.now()
        outcomes = await asyncio.gather(
            self._transfers.drive_open(now=now),
            self._operations.expire_holds(now=now),
            self._wallets.close_due_fundings(now=now),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
