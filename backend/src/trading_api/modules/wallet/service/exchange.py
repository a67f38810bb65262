"""Currency exchange within one wallet, at the market's newest price."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from trading_api.kernel.errors import FieldError
from trading_api.kernel.values import Money
from trading_api.kernel.values import currency as known_currency
from trading_api.ledger.domain import Book
from trading_api.modules.wallet.domain import Rate, WalletLimits, amount_asked, currency_asked
from trading_api.modules.wallet.domain.exchange import (
    PPM,
    Conversion,
    ExchangeAccounts,
    convert,
    exchange_entry,
    price_text,
)
from trading_api.modules.wallet.errors import (
    PairNotQuotedError,
    RateMovedError,
    RateStaleError,
    SameCurrencyError,
)
from trading_api.modules.wallet.ports import RateSource
from trading_api.modules.wallet.service.till import Till, in_wallet_terms
from trading_api.runtime.database import Idempotency, Transaction


@dataclass(frozen=True, slots=True)
class Exchanged:
    """The answer to an exchange, frozen for repeats.

    Attributes:
        price: Units of the bought currency per unit sold, spread included, as text.
    """

    entry_id: str
    wallet_id: str
    sold: Money
    received: Money
    spread: Money
    price: str
    instrument: str
    occurred_at: datetime
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """What a customer gets for one unit of a currency right now.

    Attributes:
        bid: What a customer gets for one unit of `base`, in `quote`.
        ask: What a customer pays for one.
        is_fresh: Whether an exchange would be made at it.
    """

    rate: Rate
    bid: Fraction
    ask: Fraction
    is_fresh: bool


class ExchangeService:
    """Shows prices and exchanges at them.

    Args:
        fee_ppm: The house's margin on top of the market's spread, millionths of the price.
    """

    def __init__(
        self,
        *,
        till: Till,
        rates: RateSource,
        idempotency: Idempotency,
        limits: WalletLimits,
        fee_ppm: int,
    ) -> None:
        self._till = till
        self._rates = rates
        self._idempotency = idempotency
        self._limits = limits
        self.fee_ppm = fee_ppm

    async def list_offers(self, *, now: datetime) -> list[Offer]:
        """Return the prices of every pair that wallets here may exchange.

        Raises:
            UnavailableError: Prices can't be had right now.
        """
        codes = {each.code for each in self._till.currencies}
        offers = []
        for rate in await self._rates.list_rates():
            if {rate.base, rate.quote} <= codes and self._may_use(rate):
                bid, ask = Fraction(rate.bid, 10**rate.scale), Fraction(rate.ask, 10**rate.scale)
                margin = Fraction(PPM - self.fee_ppm, PPM)
                offers.append(Offer(rate, bid * margin, ask / margin, rate.is_fresh(now)))
        return sorted(offers, key=lambda each: each.rate.instrument)

    async def exchange(
        self,
        *,
        user_id: str,
        source: str,
        destination: str,
        amount: Decimal,
        minimum: Decimal | None,
        description: str,
        idempotency_key: str | None,
        now: datetime,
    ) -> Exchanged:
        """Sell an amount of one currency for another, both within the user's wallet.

        Args:
            user_id: Whose wallet.
            source: Code of the currency sold.
            destination: Code of the currency bought.
            amount: Sold; positive, in units of the source currency.
            minimum: The least to receive, in units of the other currency; None takes any price.
            description: Shown in the lists.
            idempotency_key: Of the request; None switches that off.
            now: UTC.

        Raises:
            SameCurrencyError, CurrencyNotSupportedError: The currencies.
            AmountNotPositiveError, AmountNotExactError, AmountTooSmallError: The amount.
            AmountBelowMinimumError, AmountAboveMaximumError: The limits.
            PairNotQuotedError: Nobody quotes the pair for this kind of money.
            RateStaleError: The newest price is too old.
            RateMovedError: Less than the minimum would be received.
            InsufficientFundsError: Less than the amount is available.
            WalletFrozenError: An operator froze the wallet.
        """
        asked = self._till.asked(amount, source)
        bought = currency_asked(destination, self._till.currencies)
        if bought == asked.currency:
            message = "choose two currencies"
            raise SameCurrencyError(message, errors=[FieldError("to", "same_currency", message)])
        least = None if minimum is None else amount_asked(minimum, bought)
        self._limits.exchange.ensure_single(asked)
        body = {
            "from": asked.currency.code,
            "to": bought.code,
            "amount": str(asked),
            "minimum": None if least is None else str(least),
            "description": description,
        }
        async with self._till.database.snapshot() as snapshot:
            # A repeat is answered whatever became of the prices.
            earlier = await self._idempotency.find(
                snapshot,
                user_id=user_id,
                operation="wallet.exchange",
                key=idempotency_key,
                body=body,
            )
        if earlier is not None:
            return _thaw(earlier)
        rates = await self._rates.list_rates()

        async def command(transaction: Transaction) -> Exchanged:
            first = await self._idempotency.begin(
                transaction,
                user_id=user_id,
                operation="wallet.exchange",
                key=idempotency_key,
                body=body,
            )
            if first is not None:
                return _thaw(first)
            wallet = await self._till.lock_wallet(transaction, user_id, now)
            wallet.ensure_active()
            conversion = self._convert(rates, asked, bought.code, least, now)
            accounts = ExchangeAccounts.of(
                wallet.account(asked.currency), wallet.account(bought), book=wallet.book
            )
            await self._till.ledger.open_accounts(transaction, accounts.all(), created_at=now)
            entry = exchange_entry(
                conversion,
                accounts,
                entry_id=self._till.ids.new("ent"),
                description=description,
                now=now,
            )
            with in_wallet_terms():
                posted = await self._till.ledger.post_entry(transaction, entry, recorded_at=now)
            await self._till.tell_posted(transaction, [wallet], posted)
            done = Exchanged(
                entry_id=entry.entry_id,
                wallet_id=wallet.wallet_id,
                sold=conversion.sold,
                received=conversion.net,
                spread=conversion.spread,
                price=price_text(conversion.price),
                instrument=conversion.rate.instrument,
                occurred_at=now,
            )
            await self._idempotency.finish(
                transaction,
                user_id=user_id,
                operation="wallet.exchange",
                key=idempotency_key,
                result=_freeze(done),
            )
            return done

        return await self._till.database.group(command)

    def _may_use(self, rate: Rate) -> bool:
        # Whoever knows the demo market's formula knows its next price (rules of books, H).
        return not (rate.is_demo and self._till.book is Book.FUNDED)

    def _convert(
        self, rates: list[Rate], asked: Money, bought: str, least: Money | None, now: datetime
    ) -> Conversion:
        pair = {asked.currency.code, bought}
        found = [each for each in rates if {each.base, each.quote} == pair and self._may_use(each)]
        if not found:
            raise PairNotQuotedError(
                f"{asked.currency.code} and {bought} can't be exchanged here",
                source=asked.currency.code,
                destination=bought,
            )
        rate = max(found, key=lambda each: each.at)
        if not rate.is_fresh(now):
            raise RateStaleError(
                "the newest price is too old to exchange at",
                retry_after_seconds=1,
                quote_at=rate.at.isoformat(),
            )
        conversion = convert(asked, known_currency(bought), rate, fee_ppm=self.fee_ppm)
        if least is not None and conversion.net < least:
            raise RateMovedError(
                f"{conversion.net} {bought} would be received, at least {least} are asked for",
                offered=str(conversion.net),
                minimum=str(least),
                currency=bought,
            )
        return conversion


def _freeze(done: Exchanged) -> dict[str, str]:
    return {
        "entry_id": done.entry_id,
        "wallet_id": done.wallet_id,
        "sold": str(done.sold),
        "sold_currency": done.sold.currency.code,
        "received": str(done.received),
        "received_currency": done.received.currency.code,
        "spread": str(done.spread),
        "price": done.price,
        "instrument": done.instrument,
        "occurred_at": done.occurred_at.isoformat(),
    }


def _thaw(frozen: dict[str, str]) -> Exchanged:
    received = known_currency(frozen["received_currency"])
    return Exchanged(
        entry_id=frozen["entry_id"],
        wallet_id=frozen["wallet_id"],
        sold=Money.parse(frozen["sold"], known_currency(frozen["sold_currency"])),
        received=Money.parse(frozen["received"], received),
        spread=Money.parse(frozen["spread"], received),
        price=frozen["price"],
        instrument=frozen["instrument"],
        occurred_at=datetime.fromisoformat(frozen["occurred_at"]),
        is_replay=True,
    )
