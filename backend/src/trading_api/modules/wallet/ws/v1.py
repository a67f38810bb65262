"""Wallet channels v1: `balances`, `transactions` and `transfers` of the caller's own wallet.

All are views of one gapless stream, `wallet:<user id>`: an entry is two events, the line and then
the balance after it; a hold is one, the balance; a step of a transfer is one.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import PermissionDeniedError
from trading_api.modules.wallet.domain import Wallet
from trading_api.modules.wallet.repository import WalletEvent
from trading_api.modules.wallet.schemas import (
    BalanceView,
    EntryView,
    NoParameters,
    TransferView,
    wire,
)
from trading_api.modules.wallet.service import WalletService, stream_of
from trading_api.runtime.http import Access
from trading_api.runtime.http.wire import RequestModel
from trading_api.runtime.identity import Principal
from trading_api.runtime.ws import Channel, EventChannel, Snapshot, StreamEvent

SNAPSHOT_LINES = 50
"""Newest lines that a subscriber of `transactions` starts with; older ones come by HTTP."""

BALANCES = "balances"
TRANSACTIONS = "transactions"
TRANSFERS = "transfers"


class _WalletChannel(EventChannel[NoParameters]):
    params: ClassVar[type[RequestModel]] = NoParameters
    access: ClassVar[Access] = Access.scope("wallet:read")

    def __init__(self, service: WalletService, *, clock: Clock) -> None:
        self._service = service
        self._clock = clock

    async def authorize(self, principal: Principal | None, params: NoParameters) -> None:
        """Refuse a caller without a wallet of its own."""
        if principal is None or not principal.user_id:
            raise PermissionDeniedError("a wallet belongs to a user; act for one")

    def stream(self, principal: Principal, params: NoParameters) -> str:
        """Return the stream of the caller's wallet."""
        return stream_of(principal.user_id)

    async def read(self, stream: str, *, after: int, limit: int) -> Sequence[StreamEvent]:
        """Return the wallet's events behind an offset, of both channels."""
        user_id = stream.removeprefix(stream_of(""))
        wallet, events = await self._service.list_events(user_id=user_id, after=after, limit=limit)
        return [] if wallet is None else [_event_of(wallet, event) for event in events]


class BalancesChannel(_WalletChannel):
    """Total, held and available per currency; each update is one currency's new balance."""

    route: ClassVar[str] = BALANCES
    update: ClassVar[type[BaseModel]] = BalanceView

    async def snapshot(self, principal: Principal, params: NoParameters) -> Snapshot:
        """Return every balance."""
        view = await self._service.view(
            user_id=principal.user_id, line_count=0, now=self._clock.now()
        )
        payload = [wire(BalanceView.of(balance)) for balance in view.balances]
        return Snapshot(payload, view.wallet.epoch, view.wallet.last_event_sequence)


class TransactionsChannel(_WalletChannel):
    """Ledger lines with running balance; each update is one new line."""

    route: ClassVar[str] = TRANSACTIONS
    update: ClassVar[type[BaseModel]] = EntryView

    async def snapshot(self, principal: Principal, params: NoParameters) -> Snapshot:
        """Return the newest lines, newest first."""
        view = await self._service.view(
            user_id=principal.user_id, line_count=SNAPSHOT_LINES, now=self._clock.now()
        )
        payload = [
            wire(EntryView.of_line(line, wallet_id=view.wallet.wallet_id)) for line in view.lines
        ]
        return Snapshot(payload, view.wallet.epoch, view.wallet.last_event_sequence)


class TransfersChannel(_WalletChannel):
    """Transfers to and from trading accounts; each update is one transfer's new state."""

    route: ClassVar[str] = TRANSFERS
    update: ClassVar[type[BaseModel]] = TransferView

    async def snapshot(self, principal: Principal, params: NoParameters) -> Snapshot:
        """Return the newest transfers, newest first."""
        view = await self._service.view(
            user_id=principal.user_id,
            line_count=0,
            transfer_count=SNAPSHOT_LINES,
            now=self._clock.now(),
        )
        payload = [wire(TransferView.of(each)) for each in view.transfers]
        return Snapshot(payload, view.wallet.epoch, view.wallet.last_event_sequence)


def build_channels(service: WalletService, *, clock: Clock) -> Sequence[Channel[Any]]:
    """Declare the channels of v1."""
    return [
        BalancesChannel(service, clock=clock),
        TransactionsChannel(service, clock=clock),
        TransfersChannel(service, clock=clock),
    ]


def _event_of(wallet: Wallet, event: WalletEvent) -> StreamEvent:
    if event.line is not None:
        line = EntryView.of_line(event.line, wallet_id=wallet.wallet_id)
        return StreamEvent(event.sequence, TRANSACTIONS, wire(line))
    if event.transfer is not None:
        return StreamEvent(event.sequence, TRANSFERS, wire(TransferView.of(event.transfer)))
    return StreamEvent(event.sequence, BALANCES, wire(BalanceView.of(event.balance)))
