"""Broker channels v1, all of one account named by ``accountId``.

``orders``, ``positions``, ``executions`` and ``notifications`` are views of the account's one
gapless event sequence; ``equity`` shows what the account is worth and ``broker-connection`` whether
it can trade, newest wins, without an offset.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import PermissionDeniedError
from trading_api.modules.broker.errors import AccountNotFoundError
from trading_api.modules.broker.schemas import (
    CashView,
    ConnectionView,
    ExecutionView,
    NoticeView,
    OrderView,
    PositionView,
    StateView,
    fragment,
    show,
)
from trading_api.modules.broker.service import AccountService, ReportService
from trading_api.modules.broker.service.desk import stream_of
from trading_api.runtime.http import Access
from trading_api.runtime.http.wire import RequestModel
from trading_api.runtime.identity import Principal
from trading_api.runtime.ws import Channel, EventChannel, PriceChannel, Snapshot, StreamEvent

SNAPSHOT_EXECUTIONS = 200
"""Newest fills that a subscriber of ``executions`` starts with; older ones come by HTTP."""

EQUITY_FEED = "equity:"
"""Feeds of ``equity`` begin with this; the account's id follows."""

SNAPSHOT_NOTICES = 50
"""Newest notices that a subscriber of ``notifications`` starts with."""

SNAPSHOT_CASH = 50
"""Newest movements that a subscriber of ``cash`` starts with; older ones come by HTTP."""

CONNECTION_FEED = "connection:"
"""Feeds of ``broker-connection`` begin with this; the account's id follows."""

_ROUTES = {
    "order": "orders",
    "execution": "executions",
    "position": "positions",
    "cash": "cash",
    "notice": "notifications",
}
"""Channel by kind of event."""


class AccountParameters(RequestModel):
    """Which account to listen to."""

    accountId: Annotated[str, Field(min_length=1, max_length=64)]  # noqa: N815 - the wire's name


class _Authorized:
    """What every channel of an account needs: to know whose it is."""

    params: ClassVar[type[RequestModel]] = AccountParameters
    access: ClassVar[Access] = Access.scope("broker:read", shared=True)

    def __init__(self, accounts: AccountService, reports: ReportService, clock: Clock) -> None:
        self._accounts = accounts
        self._reports = reports
        self._clock = clock

    async def authorize(self, principal: Principal | None, params: AccountParameters) -> None:
        """Refuse an account of somebody else, or not shared, as one that doesn't exist."""
        if principal is not None and principal.account_id not in (None, params.accountId):
            raise AccountNotFoundError("there is no such trading account")
        await self._accounts.resolve(
            user_id=_user_of(principal), account_id=params.accountId, now=self._clock.now()
        )


class _AccountChannel(_Authorized, EventChannel[AccountParameters]):
    def stream(self, principal: Principal, params: AccountParameters) -> str:
        """Return the account's stream."""
        return stream_of(params.accountId)

    async def read(self, stream: str, *, after: int, limit: int) -> Sequence[StreamEvent]:
        """Return the account's events behind an offset, of all channels."""
        account_id = stream.removeprefix(stream_of(""))
        events = await self._reports.read_stream(account_id=account_id, after=after, limit=limit)
        found = []
        for event in events:
            kind, view = show(event)
            found.append(StreamEvent(event.sequence, _ROUTES[kind], fragment(view)))
        return found


class OrdersChannel(_AccountChannel):
    """Every change of every order; starts with the open ones and those closed this day."""

    route: ClassVar[str] = "orders"
    update: ClassVar[type[BaseModel]] = OrderView

    async def snapshot(self, principal: Principal, params: AccountParameters) -> Snapshot:
        """Return the orders as ``GET /orders`` does."""
        found = await self._reports.list_orders(
            user_id=principal.user_id, account_id=params.accountId, now=self._clock.now()
        )
        views = [OrderView.of(each) for each in found.orders]
        return Snapshot(fragment(views), found.account.epoch, found.account.event_sequence)


class PositionsChannel(_AccountChannel):
    """Every change of what is held; ``qty`` 0 tells that a position was closed."""

    route: ClassVar[str] = "positions"
    update: ClassVar[type[BaseModel]] = PositionView

    async def snapshot(self, principal: Principal, params: AccountParameters) -> Snapshot:
        """Return what is held as ``GET /positions`` does."""
        found = await self._reports.list_positions(
            user_id=principal.user_id, account_id=params.accountId, now=self._clock.now()
        )
        views = [PositionView.of(each, found.quotes) for each in found.positions]
        return Snapshot(fragment(views), found.account.epoch, found.account.event_sequence)


class ExecutionsChannel(_AccountChannel):
    """Every fill; starts with the newest ones."""

    route: ClassVar[str] = "executions"
    update: ClassVar[type[BaseModel]] = ExecutionView

    async def snapshot(self, principal: Principal, params: AccountParameters) -> Snapshot:
        """Return the newest fills, newest first."""
        found = await self._reports.list_executions(
            user_id=principal.user_id,
            account_id=params.accountId,
            limit=SNAPSHOT_EXECUTIONS,
            now=self._clock.now(),
        )
        views = [ExecutionView.of(each) for each in found.executions]
        return Snapshot(fragment(views), found.account.epoch, found.account.event_sequence)


class EquityChannel(_Authorized, PriceChannel[AccountParameters]):
    """What the account is worth, after every change of a price that matters to it."""

    route: ClassVar[str] = "equity"
    update: ClassVar[type[BaseModel]] = StateView

    def feeds(self, params: AccountParameters) -> Sequence[str]:
        """Return the account's feed."""
        return [EQUITY_FEED + params.accountId]

    async def snapshot(
        self, principal: Principal | None, params: AccountParameters
    ) -> Sequence[Any]:
        """Return the present worth."""
        report = await self._reports.get_state(
            user_id=_user_of(principal), account_id=params.accountId, now=self._clock.now()
        )
        return [fragment(StateView.of(report))]


class NotificationsChannel(_AccountChannel):
    """What the owner should know: margin calls, stop-outs, switches, resets."""

    route: ClassVar[str] = "notifications"
    update: ClassVar[type[BaseModel]] = NoticeView

    async def snapshot(self, principal: Principal, params: AccountParameters) -> Snapshot:
        """Return the newest notices, newest first."""
        account, events = await self._reports.list_notices(
            user_id=principal.user_id,
            account_id=params.accountId,
            limit=SNAPSHOT_NOTICES,
            now=self._clock.now(),
        )
        views = [show(each)[1] for each in events]
        return Snapshot(fragment(views), account.epoch, account.event_sequence)


class CashChannel(_AccountChannel):
    """Every movement of cash: results, commissions, financing, transfers from and to the wallet."""

    route: ClassVar[str] = "cash"
    update: ClassVar[type[BaseModel]] = CashView

    async def snapshot(self, principal: Principal, params: AccountParameters) -> Snapshot:
        """Return the newest movements, newest first."""
        account, events = await self._reports.list_cash_changes(
            user_id=principal.user_id,
            account_id=params.accountId,
            limit=SNAPSHOT_CASH,
            now=self._clock.now(),
        )
        views = [show(each)[1] for each in events]
        return Snapshot(fragment(views), account.epoch, account.event_sequence)


class ConnectionChannel(_Authorized, PriceChannel[AccountParameters]):
    """Whether the venue can trade for the account: TradingView's ConnectionStatus, and why."""

    route: ClassVar[str] = "broker-connection"
    update: ClassVar[type[BaseModel]] = ConnectionView

    def feeds(self, params: AccountParameters) -> Sequence[str]:
        """Return the account's feed."""
        return [CONNECTION_FEED + params.accountId]

    async def snapshot(
        self, principal: Principal | None, params: AccountParameters
    ) -> Sequence[Any]:
        """Return the present status."""
        connection = await self._reports.get_connection(account_id=params.accountId)
        return [fragment(ConnectionView.of(connection))]


def build_channels(
    *, accounts: AccountService, reports: ReportService, clock: Clock
) -> Sequence[Channel[Any]]:
    """Declare the channels of v1."""
    return [
        channel(accounts, reports, clock)
        for channel in (
            OrdersChannel,
            PositionsChannel,
            ExecutionsChannel,
            EquityChannel,
            NotificationsChannel,
            CashChannel,
            ConnectionChannel,
        )
    ]


def _user_of(principal: Principal | None) -> str:
    if principal is None or not principal.user_id:
        raise PermissionDeniedError("a trading account belongs to a user; act for one")
    return principal.user_id
