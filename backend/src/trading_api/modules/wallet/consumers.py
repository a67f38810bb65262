"""What other modules' facts do to wallets."""

from collections.abc import Sequence

from trading_api.contracts.auth import UserRegistered
from trading_api.contracts.envelope import Envelope
from trading_api.kernel.clock import Clock
from trading_api.modules.wallet.service import WalletService
from trading_api.runtime.module import Consumer


def build_consumers(service: WalletService, *, clock: Clock) -> Sequence[Consumer]:
    """Declare the handlers."""

    async def open_wallet(envelope: Envelope, event: UserRegistered) -> None:
        await service.open_wallet(user_id=event.user_id, event_id=envelope.id, now=clock.now())

    return [Consumer(producer="auth", event=UserRegistered, handle=open_wallet)]
