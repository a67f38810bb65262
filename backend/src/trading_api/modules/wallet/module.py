"""Puts the wallet together."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from trading_api.contracts.auth import UserRegistered
from trading_api.contracts.wallet import EntryPosted
from trading_api.modules.wallet import tables
from trading_api.modules.wallet.adapters.manual_rail import ManualRail
from trading_api.modules.wallet.adapters.sandbox_rail import SandboxRail
from trading_api.modules.wallet.api import v1 as api_v1
from trading_api.modules.wallet.consumers import build_consumers
from trading_api.modules.wallet.ports import PaymentRail
from trading_api.modules.wallet.repository import WalletRepository
from trading_api.modules.wallet.service import WalletService
from trading_api.modules.wallet.settings import WalletSettings
from trading_api.modules.wallet.ws import v1 as ws_v1
from trading_api.runtime.database import Idempotency, Inbox, Leases, Outbox
from trading_api.runtime.http.cursors import Cursors
from trading_api.runtime.module import Command, Manifest, Module, ModuleContext, ModuleParts
from trading_api.runtime.secrets import load_secret_key
from trading_api.runtime.settings import load_settings

EXIT_CORRUPT_DATA = 65

_RAILS: dict[str, Callable[[], PaymentRail]] = {"sandbox": SandboxRail, "manual": ManualRail}


class WalletModule(Module):
    """Funding wallets with a provable ledger."""

    manifest: ClassVar[Manifest] = Manifest(
        name="wallet",
        summary="funding wallets, the double-entry ledger, deposits and withdrawals",
        tags=("wallet",),
        publishes=(EntryPosted,),
        consumes=(UserRegistered,),
        has_websocket=True,
    )

    def build(self, context: ModuleContext) -> ModuleParts:
        """Build the wallet's parts.

        Raises:
            ConfigurationError: Lists what is wrong with `WALLET_*`.
        """
        settings = load_settings(WalletSettings, context.environ)
        rail_name = settings.rail_name(is_production=context.settings.is_production)
        database = context.require_database()
        outbox = Outbox(
            tables.outbox_table, producer=context.name, ids=context.ids, clock=context.clock
        )
        inbox = Inbox(tables.inbox_table)
        service = WalletService(
            database=database,
            repository=WalletRepository(),
            outbox=outbox,
            inbox=inbox,
            idempotency=Idempotency(tables.idempotency_table, clock=context.clock),
            ids=context.ids,
            rail=_RAILS[rail_name](),
            currencies=settings.known_currencies(),
            wake=context.hub.wake,
        )
        cursors = Cursors(
            load_secret_key(context.settings.secrets_directory, context.environ),
            purpose="wallet.transactions",
        )
        return ModuleParts(
            routers={"v1": api_v1.build_router(service, clock=context.clock, cursors=cursors)},
            channels={"v1": ws_v1.build_channels(service, clock=context.clock)},
            consumers=build_consumers(service, clock=context.clock),
            commands=[
                Command(
                    "verify-ledger",
                    "prove every entry, balance, hold and hash chain of the wallet's ledger",
                    _verify_command(service),
                )
            ],
            outbox=outbox,
            inbox=inbox,
            leases=Leases(
                tables.leases_table,
                database=database,
                clock=context.clock,
                owner=context.instance,
            ),
        )


def _verify_command(service: WalletService) -> Callable[[Sequence[str]], Awaitable[int]]:
    async def verify(_arguments: Sequence[str]) -> int:
        violations = await service.verify()
        for violation in violations:
            sys.stdout.write(f"{violation.id} {violation.subject}: {violation.message}\n")
        sys.stdout.write(f"wallet ledger: {len(violations)} violations\n")
        return EXIT_CORRUPT_DATA if violations else 0

    return verify
