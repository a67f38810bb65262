"""Puts the wallet together."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import ClassVar

from trading_api.contracts.auth import UserRegistered
from trading_api.contracts.wallet import EntryPosted, TransferClosed
from trading_api.ledger.checks import LEDGER_CHECKS
from trading_api.modules.wallet import tables
from trading_api.modules.wallet.adapters.broker_http import BrokerAccounts
from trading_api.modules.wallet.adapters.datafeed_http import DatafeedRates
from trading_api.modules.wallet.adapters.rails import make_rail
from trading_api.modules.wallet.api import internal
from trading_api.modules.wallet.api import v1 as api_v1
from trading_api.modules.wallet.consumers import Sweeper, build_consumers
from trading_api.modules.wallet.domain import Limits, WalletLimits
from trading_api.modules.wallet.repository import WalletRepository
from trading_api.modules.wallet.service import (
    ExchangeService,
    OperationsService,
    StatementService,
    Till,
    TransferService,
    WalletService,
    WithdrawalPolicy,
)
from trading_api.modules.wallet.settings import WalletSettings
from trading_api.modules.wallet.ws import v1 as ws_v1
from trading_api.runtime.crash import crash_points
from trading_api.runtime.database import Idempotency, Inbox, Leases, Outbox
from trading_api.runtime.http.cursors import Cursors
from trading_api.runtime.module import (
    BackgroundTask,
    Command,
    Manifest,
    Module,
    ModuleContext,
    ModuleParts,
    Proof,
)
from trading_api.runtime.secrets import load_secret_key
from trading_api.runtime.settings import load_settings

EXIT_CORRUPT_DATA = 65


class WalletModule(Module):
    """Funding wallets with a provable ledger."""

    manifest: ClassVar[Manifest] = Manifest(
        name="wallet",
        summary="funding wallets, the double-entry ledger, transfers, exchange, statements",
        tags=("wallet",),
        publishes=(EntryPosted, TransferClosed),
        consumes=(UserRegistered,),
        has_websocket=True,
    )

    def build(self, context: ModuleContext) -> ModuleParts:
        """Build the wallet's parts.

        Raises:
            ConfigurationError: Lists what is wrong with `WALLET_*`.
        """
        settings = load_settings(WalletSettings, context.environ)
        is_production, clock = context.settings.is_production, context.clock
        rail = make_rail(settings.rail_name(is_production=is_production))
        database = context.require_database()
        outbox = Outbox(tables.outbox_table, producer=context.name, ids=context.ids, clock=clock)
        inbox = Inbox(tables.inbox_table)
        idempotency = Idempotency(tables.idempotency_table, clock=clock)
        limits = _limits_of(settings)
        till = Till(
            database=database,
            repository=WalletRepository(),
            outbox=outbox,
            ids=context.ids,
            book=rail.book,
            currencies=settings.known_currencies(),
            wake=context.hub.wake,
        )
        wallets = WalletService(
            till=till,
            inbox=inbox,
            idempotency=idempotency,
            rail=rail,
            limits=limits,
            policy=_policy_of(settings, is_production=is_production),
        )
        transfers = TransferService(
            till=till,
            accounts=BrokerAccounts(context.peers.client("broker")),
            idempotency=idempotency,
            limits=limits,
            clock=clock,
            crash_point=crash_points(context.environ, context.settings),
        )
        operations = OperationsService(till=till, transfers=transfers)
        services = api_v1.Services(
            wallets=wallets,
            transfers=transfers,
            exchange=ExchangeService(
                till=till,
                rates=DatafeedRates(client=context.peers.client("datafeed"), clock=clock),
                idempotency=idempotency,
                limits=limits,
                fee_ppm=settings.exchange_fee_ppm,
            ),
            statements=StatementService(till=till),
            operations=operations,
        )
        sweeper = Sweeper(wallets=wallets, transfers=transfers, operations=operations, clock=clock)
        cursors = Cursors(
            load_secret_key(context.settings.secrets_directory, context.environ),
            purpose="wallet.transactions",
        )
        return ModuleParts(
            routers={"v1": api_v1.build_router(services, clock=clock, cursors=cursors)},
            absolute=internal.build_router(services, clock=clock),
            channels={"v1": ws_v1.build_channels(wallets, clock=clock)},
            consumers=build_consumers(wallets, clock=clock),
            tasks=[BackgroundTask("wallet-sweeper", sweeper.run, lease="sweeper")],
            commands=[
                Command(
                    "verify-ledger",
                    "prove every entry, balance, hold and hash chain of the wallet's ledger",
                    _verify_command(operations),
                )
            ],
            proofs=[
                Proof("ledger", LEDGER_CHECKS, operations.verify_ledger),
                Proof("wallets", ("W1", "W2", "W3", "W4"), operations.verify_wallets),
                Proof("clearing", ("W5",), operations.verify_clearing),
            ],
            after_restore=[partial(till.repository.renew_epochs, ids=context.ids)],
            outbox=outbox,
            inbox=inbox,
            leases=Leases(
                tables.leases_table, database=database, clock=clock, owner=context.instance
            ),
        )


def _limits_of(settings: WalletSettings) -> WalletLimits:
    return WalletLimits(
        deposit=Limits(
            minimum=settings.amounts("deposit_minimum"),
            maximum=settings.amounts("deposit_maximum"),
            daily=settings.amounts("deposit_daily"),
        ),
        withdrawal=Limits(
            minimum=settings.amounts("withdrawal_minimum"),
            maximum=settings.amounts("withdrawal_maximum"),
            daily=settings.amounts("withdrawal_daily"),
        ),
        transfer=Limits(
            minimum=settings.amounts("transfer_minimum"),
            maximum=settings.amounts("transfer_maximum"),
            daily=settings.amounts("transfer_daily"),
        ),
        exchange=Limits(
            minimum=settings.amounts("exchange_minimum"),
            maximum=settings.amounts("exchange_maximum"),
        ),
    )


def _policy_of(settings: WalletSettings, *, is_production: bool) -> WithdrawalPolicy:
    return WithdrawalPolicy(
        cooling_off=settings.cooling_off(is_production=is_production),
        confirm_from=settings.amounts("withdrawal_confirm_from"),
        confirm_within=timedelta(seconds=settings.withdrawal_confirm_seconds),
    )


def _verify_command(
    service: OperationsService,
) -> Callable[[Sequence[str]], Awaitable[int]]:
    async def verify(_arguments: Sequence[str]) -> int:
        found = await service.verify()
        for violation in found.violations:
            sys.stdout.write(f"{violation.id} {violation.subject}: {violation.message}\n")
        for each in found.not_checked:
            sys.stdout.write(f"not checked: {each}\n")
        sys.stdout.write(f"wallet ledger: {len(found.violations)} violations\n")
        return EXIT_CORRUPT_DATA if found.violations else 0

    return verify
