"""Leverage on the wire, in TradingView's shapes."""

from pydantic import Field

from trading_api.modules.broker.domain.account import Valuation
from trading_api.modules.broker.domain.instrument import full_symbol
from trading_api.modules.broker.schemas.wire import Request, SideNumber, TypeNumber, View, money_of
from trading_api.modules.broker.service.leverage import LeverageInfo, LeveragePreview
from trading_api.runtime.http.wire import StrictInt, Symbol


class LeverageRequest(Request):
    """Which leverage to put in force, or to reckon with."""

    symbol: Symbol
    leverage: StrictInt = Field(ge=1, le=1000)
    side: SideNumber | None = Field(None, description="the same for both sides")
    order_type: TypeNumber | None = Field(None, description="the same for every type")

    @property
    def instrument(self) -> str:
        """Return the full symbol."""
        return full_symbol(self.symbol)


class LeverageInfoView(View):
    """What leverage is in force, and what may be chosen."""

    title: str
    leverage: int
    min: int
    max: int
    step: int

    @classmethod
    def of(cls, info: LeverageInfo) -> "LeverageInfoView":
        """Translate an info."""
        return cls(
            title=f"Leverage of {info.instrument.symbol}",
            leverage=info.leverage,
            min=info.minimum,
            max=info.maximum,
            step=1,
        )


class LeverageView(View):
    """What is in force now."""

    leverage: int


class LeveragePreviewView(View):
    """What a leverage would mean for the account."""

    infos: list[str]
    warnings: list[str]
    errors: list[str]

    @classmethod
    def of(cls, preview: LeveragePreview) -> "LeveragePreviewView":
        """Translate a preview."""
        account, before, after = preview.account, preview.before, preview.after

        def line(name: str, read: str) -> str:
            was, becomes = (
                f"{money_of(getattr(worth, read), account.currency):f}" for worth in (before, after)
            )
            return f"{name}: {was} → {becomes} {account.currency.code}"

        return cls(
            infos=[
                f"Leverage: {preview.info.leverage}:1",
                line("Margin of positions", "margin_minor"),
                line("Reserved for orders", "reserved_minor"),
                line("Available", "available_minor"),
            ],
            warnings=_warnings(after),
            errors=[] if preview.error is None else [preview.error.message],
        )


def _warnings(after: Valuation) -> list[str]:
    if after.margin_minor and after.equity_minor < 2 * after.margin_minor:
        return ["Equity would be less than twice the margin of your positions."]
    return []
