"""How an account did, on the wire; rates are fractions: 0.1 is ten percent."""

from decimal import Decimal

from pydantic import Field

from trading_api.modules.broker.schemas.wire import (
    Milliseconds,
    Number,
    View,
    money_of,
    ms_of,
)
from trading_api.modules.broker.service.performance import Performance


class CurvePointView(View):
    """The account at one instant."""

    time: Milliseconds
    equity: Number
    balance: Number
    margin: Number
    exposure: Number
    total_return: Number = Field(description="since the first point, without deposits")
    drawdown: Number = Field(description="below the best return before it")


class SymbolResultView(View):
    """What one instrument brought."""

    symbol: str
    executions: int
    closes: int = Field(description="of them, those that closed something")
    wins: int = Field(description="of those, those that earned something before commission")
    realized_pl: Number
    commission: Number
    unrealized_pl: Number = Field(description="of what is held now")


class DayResultView(View):
    """One UTC day."""

    day: str
    start_equity: Number
    end_equity: Number
    flows: Number = Field(description="deposits less withdrawals")
    pl: Number = Field(description="open results included")
    day_return: Number


class PerformanceView(View):
    """How an account did in a window."""

    account_id: str
    currency: str
    from_time: Milliseconds = Field(alias="from")
    to_time: Milliseconds = Field(alias="to")
    equity: Number = Field(description="now")
    pl: Number = Field(description="what trading earned in the window, open results included")
    flows: Number = Field(description="deposits less withdrawals in the window")
    total_return: Number = Field(description="time-weighted: without deposits and withdrawals")
    max_drawdown: Number
    exposure: Number = Field(description="value of all positions now, without their signs")
    net_exposure: Number = Field(description="the same with their signs")
    leverage: Number = Field(description="exposure over equity, now; 0 without equity")
    curve: list[CurvePointView]
    by_symbol: list[SymbolResultView]
    by_day: list[DayResultView]

    @classmethod
    def of(cls, found: Performance) -> "PerformanceView":
        """Translate a report."""
        currency = found.account.currency

        def money(minor: int) -> Decimal:
            return money_of(minor, currency)

        equity = found.worth.equity_minor
        leverage = Decimal(0)
        if equity > 0:
            leverage = (Decimal(found.exposure_minor) / Decimal(equity)).quantize(Decimal("0.0001"))
        return cls.model_construct(
            account_id=found.account.account_id,
            currency=currency.code,
            from_time=ms_of(found.from_),
            to_time=ms_of(found.to),
            equity=money(equity),
            pl=money(found.profit_minor),
            flows=money(found.flows_minor),
            total_return=found.growth - 1,
            max_drawdown=found.drawdown_max,
            exposure=money(found.exposure_minor),
            net_exposure=money(found.net_exposure_minor),
            leverage=leverage,
            curve=[
                CurvePointView.model_construct(
                    time=ms_of(each.point.at),
                    equity=money(each.point.equity_minor),
                    balance=money(each.point.cash_minor),
                    margin=money(each.point.margin_minor),
                    exposure=money(each.point.exposure_minor),
                    total_return=each.growth - 1,
                    drawdown=each.drawdown,
                )
                for each in found.curve
            ],
            by_symbol=[
                SymbolResultView.model_construct(
                    symbol=each.symbol,
                    executions=each.executions,
                    closes=each.closes,
                    wins=each.wins,
                    realized_pl=money(each.realized_minor),
                    commission=money(each.commission_minor),
                    unrealized_pl=money(found.unrealized_by_symbol.get(each.symbol, 0)),
                )
                for each in found.symbols
            ],
            by_day=[
                DayResultView.model_construct(
                    day=each.day.isoformat(),
                    start_equity=money(each.start_minor),
                    end_equity=money(each.end_minor),
                    flows=money(each.flows_minor),
                    pl=money(each.profit_minor),
                    day_return=each.growth - 1,
                )
                for each in found.days
            ],
        )
