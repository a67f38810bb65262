"""Prices of currencies as datafeed serves them to other modules."""

import httpx
from pydantic import ValidationError

from trading_api.contracts import datafeed as contract
from trading_api.kernel.clock import Clock, from_us
from trading_api.kernel.errors import UnavailableError
from trading_api.modules.wallet.domain.exchange import Rate
from trading_api.runtime.peers import PeerClient

INSTRUMENTS_SECONDS = 60.0
_KINDS = ("forex", "crypto")


class DatafeedRates:
    """Quotes of every tradable pair of currencies, asked anew for each exchange."""

    def __init__(self, *, client: PeerClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._pairs: dict[str, contract.Instrument] = {}
        self._asked_at: float | None = None

    async def list_rates(self) -> list[Rate]:
        """Return the newest price of every pair."""
        pairs = await self._list_pairs()
        if not pairs:
            return []
        answer = await self._ask(
            "/internal/v1/datafeed/quotes", {"symbols": ",".join(sorted(pairs))}
        )
        try:
            quotes = contract.QuotesAnswer.model_validate_json(answer).quotes
        except ValidationError as error:
            raise _silent() from error
        return [
            Rate(
                instrument=quote.instrument,
                base=pairs[quote.instrument].base_currency or "",
                quote=pairs[quote.instrument].quote_currency,
                bid=quote.bid,
                ask=quote.ask,
                scale=quote.scale,
                at=from_us(quote.at_us),
                is_demo=pairs[quote.instrument].exchange == "DEMO",
            )
            for quote in quotes
            if quote.instrument in pairs and quote.tradable
        ]

    async def _list_pairs(self) -> dict[str, contract.Instrument]:
        now = self._clock.monotonic()
        if self._asked_at is None or now - self._asked_at >= INSTRUMENTS_SECONDS:
            answer = await self._ask("/internal/v1/datafeed/instruments", {})
            try:
                found = contract.InstrumentsAnswer.model_validate_json(answer).instruments
            except ValidationError as error:
                raise _silent() from error
            self._pairs = {
                each.instrument: each
                for each in found
                if each.tradable and each.kind in _KINDS and each.base_currency
            }
            self._asked_at = now
        return self._pairs

    async def _ask(self, path: str, params: dict[str, str]) -> bytes:
        response = await self._client.get(path, params=params, timeout_seconds=1.0)
        try:
            response.raise_for_status()
        except httpx.HTTPStatusError as error:
            raise _silent() from error
        return response.content


def _silent() -> UnavailableError:
    return UnavailableError(
        "prices can't be had right now", retry_after_seconds=1, module="datafeed"
    )
