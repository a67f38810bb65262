"""Rows ⇄ domain; the account's events keep their subjects in the same form, as JSON."""

import json
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, assert_never

from trading_api.kernel.clock import from_us, to_us
from trading_api.kernel.values import currency
from trading_api.modules.broker.domain.account import Account, PositionMode, TradingState
from trading_api.modules.broker.domain.conversion import Conversion
from trading_api.modules.broker.domain.event import (
    AccountEvent,
    CashChange,
    Notice,
    NoticeCode,
    Subject,
)
from trading_api.modules.broker.domain.execution import Execution
from trading_api.modules.broker.domain.instrument import Terms
from trading_api.modules.broker.domain.matching import Liquidity
from trading_api.modules.broker.domain.order import (
    NO_BRACKETS,
    BracketRole,
    Brackets,
    CloseReason,
    Order,
    OrderSide,
    OrderStatus,
    OrderType,
    ParentType,
    TimeInForce,
    Trailing,
)
from trading_api.modules.broker.domain.position import Position

Values = Mapping[Any, Any]

_EPOCH_DAY = date(1970, 1, 1).toordinal()


def account_values(account: Account) -> dict[str, Any]:
    """Return an account's row."""
    return {
        "account_id": account.account_id,
        "user_id": account.user_id,
        "ordinal": account.ordinal,
        "name": account.name,
        "book": account.book,
        "currency": account.currency.code,
        "opened_at_us": to_us(account.opened_at),
        "starting_cash_minor": account.starting_cash_minor,
        "position_mode": account.position_mode.value,
        "sampled_sequence": 0,
        **mutable_values(account),
    }


def mutable_values(account: Account) -> dict[str, Any]:
    """Return what changes in an account's row under its lock."""
    return {
        "epoch": account.epoch,
        "event_sequence": account.event_sequence,
        "fact_sequence": account.fact_sequence,
        "trading_state": account.trading_state.value,
        "leverages": json.dumps(dict(account.leverages), separators=(",", ":"), sort_keys=True),
        "pace_us": account.pace_us,
        "margin_called_at_us": _us(account.margin_called_at),
        "begun_at_us": to_us(account.begun_at),
        "financed_day": account.financed_on.toordinal() - _EPOCH_DAY,
    }


def account_of(values: Values) -> Account:
    """Return the account of a row; the platform's kill switch where it was read with it."""
    return Account(
        account_id=values["account_id"],
        user_id=values["user_id"],
        ordinal=values["ordinal"],
        name=values["name"],
        book=values["book"],
        currency=currency(values["currency"]),
        epoch=values["epoch"],
        event_sequence=values["event_sequence"],
        fact_sequence=values["fact_sequence"],
        opened_at=from_us(values["opened_at_us"]),
        starting_cash_minor=values["starting_cash_minor"],
        position_mode=PositionMode(values["position_mode"]),
        trading_state=TradingState(values["trading_state"]),
        platform_state=TradingState(values.get("platform_state") or TradingState.ACTIVE),
        leverages=json.loads(values["leverages"]),
        pace_us=values["pace_us"],
        margin_called_at=_instant(values["margin_called_at_us"]),
        financed_on=date.fromordinal(values["financed_day"] + _EPOCH_DAY),
        begun_at=from_us(values["begun_at_us"]),
    )


def order_values(order: Order) -> dict[str, Any]:
    """Return an order's row, without its ticket."""
    return {
        "order_id": order.order_id,
        "account_id": order.account_id,
        "client_order_id": order.client_order_id,
        "symbol": order.symbol,
        "side": order.side.value,
        "type": order.type.value,
        "time_in_force": order.time_in_force.value,
        "reduce_only": order.reduce_only,
        "price_scale": order.price_scale,
        "quantity_scale": order.quantity_scale,
        "quantity": order.quantity,
        "limit_price": order.limit_price,
        "trigger_price": order.trigger_price,
        "expires_at_us": _us(order.expires_at),
        "reserve_price": order.reserve_price,
        "quote_sequence": order.quote_sequence,
        "status": order.status.value,
        "filled_quantity": order.filled_quantity,
        "filled_value": order.filled_value,
        "close_reason": order.close_reason.value if order.close_reason else None,
        "accepted_at_us": to_us(order.accepted_at),
        "updated_at_us": to_us(order.updated_at),
        "position_id": order.position_id,
        "active_at_us": _us(order.active_at),
        "ingest_sequence": order.ingest_sequence,
        "post_only": order.post_only,
        "trailing": _trailing_text(order.trailing),
        "parent_id": order.parent_id,
        "parent_type": order.parent_type.value if order.parent_type else None,
        "bracket_role": order.role.value if order.role else None,
        "brackets": _brackets_text(order.brackets),
    }


def order_of(values: Values) -> Order:
    """Return the order of a row, or of an event, which may be older than some columns."""
    reason = values["close_reason"]
    parent_type, role = values.get("parent_type"), values.get("bracket_role")
    return Order(
        order_id=values["order_id"],
        account_id=values["account_id"],
        client_order_id=values["client_order_id"],
        symbol=values["symbol"],
        side=OrderSide(values["side"]),
        type=OrderType(values["type"]),
        time_in_force=TimeInForce(values["time_in_force"]),
        reduce_only=bool(values["reduce_only"]),
        price_scale=values["price_scale"],
        quantity_scale=values["quantity_scale"],
        quantity=values["quantity"],
        limit_price=values["limit_price"],
        trigger_price=values["trigger_price"],
        expires_at=_instant(values["expires_at_us"]),
        reserve_price=values["reserve_price"],
        quote_sequence=values["quote_sequence"],
        accepted_at=from_us(values["accepted_at_us"]),
        updated_at=from_us(values["updated_at_us"]),
        position_id=values.get("position_id") or values["symbol"],
        active_at=_instant(values.get("active_at_us")),
        ingest_sequence=values.get("ingest_sequence", 0),
        post_only=bool(values.get("post_only")),
        trailing=_trailing_of(values.get("trailing")),
        parent_id=values.get("parent_id"),
        parent_type=ParentType(parent_type) if parent_type else None,
        role=BracketRole(role) if role else None,
        brackets=_brackets_of(values.get("brackets")),
        status=OrderStatus(values["status"]),
        filled_quantity=values["filled_quantity"],
        filled_value=values["filled_value"],
        close_reason=CloseReason(reason) if reason else None,
    )


def execution_values(execution: Execution) -> dict[str, Any]:
    """Return an execution's row."""
    return {
        "execution_id": execution.execution_id,
        "account_id": execution.account_id,
        "order_id": execution.order_id,
        "sequence": execution.sequence,
        "symbol": execution.symbol,
        "side": execution.side.value,
        "price_scale": execution.price_scale,
        "quantity_scale": execution.quantity_scale,
        "quantity": execution.quantity,
        "price": execution.price,
        "slippage": execution.slippage,
        "position_id": execution.position_id,
        "closed_quantity": execution.closed_quantity,
        "signed_quantity_after": execution.signed_quantity_after,
        "realized": execution.realized,
        "realized_minor": execution.realized_minor,
        "commission_minor": execution.commission_minor,
        "currency": execution.currency,
        "currency_scale": execution.currency_scale,
        "liquidity": execution.liquidity.value,
        "quote_bid": execution.quote_bid,
        "quote_ask": execution.quote_ask,
        "quote_sequence": execution.quote_sequence,
        "quote_at_us": to_us(execution.quote_at),
        "executed_at_us": to_us(execution.executed_at),
        "conversion": conversion_values(execution.conversion),
    }


def execution_of(values: Values) -> Execution:
    """Return the execution of a row."""
    return Execution(
        execution_id=values["execution_id"],
        account_id=values["account_id"],
        order_id=values["order_id"],
        sequence=values["sequence"],
        symbol=values["symbol"],
        side=OrderSide(values["side"]),
        price_scale=values["price_scale"],
        quantity_scale=values["quantity_scale"],
        quantity=values["quantity"],
        price=values["price"],
        slippage=values.get("slippage", 0),
        position_id=values.get("position_id") or values["symbol"],
        closed_quantity=values["closed_quantity"],
        signed_quantity_after=values["signed_quantity_after"],
        realized=values["realized"],
        realized_minor=values["realized_minor"],
        commission_minor=values["commission_minor"],
        currency=values["currency"],
        currency_scale=values["currency_scale"],
        liquidity=Liquidity(values["liquidity"]),
        quote_bid=values["quote_bid"],
        quote_ask=values["quote_ask"],
        quote_sequence=values["quote_sequence"],
        quote_at=from_us(values["quote_at_us"]),
        executed_at=from_us(values["executed_at_us"]),
        conversion=conversion_of(values.get("conversion")),
    )


def conversion_values(conversion: Conversion | None) -> str | None:
    """Return a conversion as one column keeps it; None for none."""
    if conversion is None:
        return None
    return json.dumps(
        {
            "currency": conversion.quote_currency.code,
            "pair": conversion.pair,
            "is_inverse": conversion.is_inverse,
            "bid": conversion.bid,
            "ask": conversion.ask,
        },
        separators=(",", ":"),
    )


def conversion_of(text: str | None) -> Conversion | None:
    """Return the conversion of a column."""
    if text is None:
        return None
    values = json.loads(text)
    return Conversion(
        currency(values["currency"]),
        values["pair"],
        values["is_inverse"],
        values["bid"],
        values["ask"],
    )


def position_values(position: Position) -> dict[str, Any]:
    """Return a position's row."""
    terms = position.terms
    return {
        "account_id": position.account_id,
        "position_id": position.position_id,
        "symbol": terms.symbol,
        "price_scale": terms.price_scale,
        "quantity_scale": terms.quantity_scale,
        "multiplier": terms.multiplier,
        "leverage": terms.leverage,
        "commission_ppm": terms.commission_ppm,
        "conversion": conversion_values(terms.conversion),
        "currency": terms.currency.code,
        "signed_quantity": position.signed_quantity,
        "cost": position.cost,
        "realized_minor": position.realized_minor,
        "commission_minor": position.commission_minor,
        "financing_minor": position.financing_minor,
        "reserved_minor": position.reserved_minor,
        "last_price": position.last_price,
        "opened_at_us": _us(position.opened_at),
        "updated_at_us": to_us(position.updated_at),
        "brackets": _brackets_text(position.brackets),
    }


def position_of(values: Values) -> Position:
    """Return the position of a row, or of an event, which may be older than some columns."""
    position_id = values.get("position_id")
    return Position(
        account_id=values["account_id"],
        terms=Terms(
            symbol=values["symbol"],
            price_scale=values["price_scale"],
            quantity_scale=values["quantity_scale"],
            multiplier=values["multiplier"],
            leverage=values["leverage"],
            commission_ppm=values["commission_ppm"],
            currency=currency(values["currency"]),
            conversion=conversion_of(values.get("conversion")),
        ),
        signed_quantity=values["signed_quantity"],
        cost=values["cost"],
        realized_minor=values["realized_minor"],
        commission_minor=values["commission_minor"],
        # Absent in events from before there was financing.
        financing_minor=values.get("financing_minor", 0),
        reserved_minor=values["reserved_minor"],
        last_price=values["last_price"],
        opened_at=_instant(values["opened_at_us"]),
        updated_at=from_us(values["updated_at_us"]),
        own_id=None if position_id == values["symbol"] else position_id,
        brackets=_brackets_of(values.get("brackets")),
    )


def cash_values(change: CashChange) -> dict[str, Any]:
    """Return a cash change as an event keeps it."""
    return {
        "account_id": change.account_id,
        "entry_id": change.entry_id,
        "type": change.type,
        "change_minor": change.change_minor,
        "cash_minor": change.cash_minor,
        "currency": change.currency,
        "currency_scale": change.currency_scale,
        "reference": change.reference,
    }


def notice_values(notice: Notice) -> dict[str, Any]:
    """Return a notice as an event keeps it."""
    return {
        "account_id": notice.account_id,
        "code": notice.code.value,
        "is_error": notice.is_error,
        "text": notice.text,
        "numbers": dict(notice.numbers),
    }


def event_values(event: AccountEvent) -> dict[str, Any]:
    """Return an event's row."""
    kind, payload = _encode(event.subject)
    return {
        "account_id": event.account_id,
        "sequence": event.sequence,
        "kind": kind,
        "payload": json.dumps(payload, separators=(",", ":")),
        "occurred_at_us": to_us(event.occurred_at),
    }


def event_of(values: Values) -> AccountEvent:
    """Return the event of a row."""
    return AccountEvent(
        account_id=values["account_id"],
        sequence=values["sequence"],
        subject=_decode(values["kind"], json.loads(values["payload"])),
        occurred_at=from_us(values["occurred_at_us"]),
    )


def _encode(subject: Subject) -> tuple[str, dict[str, Any]]:
    match subject:
        case Order():
            return "order", order_values(subject)
        case Execution():
            return "execution", execution_values(subject)
        case Position():
            return "position", position_values(subject)
        case CashChange():
            return "cash", cash_values(subject)
        case Notice():
            return "notice", notice_values(subject)
        case _:
            assert_never(subject)


def _decode(kind: str, payload: Values) -> Subject:
    match kind:
        case "order":
            return order_of(payload)
        case "execution":
            return execution_of(payload)
        case "position":
            return position_of(payload)
        case "notice":
            return Notice(**{**payload, "code": NoticeCode(payload["code"])})
        case _:
            return CashChange(**payload)


def _us(instant: datetime | None) -> int | None:
    return None if instant is None else to_us(instant)


def _instant(instant_us: int | None) -> datetime | None:
    return None if instant_us is None else from_us(instant_us)


def _trailing_values(trailing: Trailing | None) -> dict[str, Any] | None:
    if trailing is None:
        return None
    return {
        "offset": trailing.offset,
        "ppm": trailing.ppm,
        "tick": trailing.tick,
        "pip": trailing.pip,
    }


def _trailing_text(trailing: Trailing | None) -> str | None:
    return None if trailing is None else _json_text(_trailing_values(trailing))


def _trailing_of(text: str | None) -> Trailing | None:
    return None if text is None else Trailing(**json.loads(text))


def _brackets_text(brackets: Brackets) -> str | None:
    if brackets.is_empty:
        return None
    return _json_text(
        {
            "take_profit": brackets.take_profit,
            "stop_loss": brackets.stop_loss,
            "trailing": _trailing_values(brackets.trailing),
        }
    )


def _brackets_of(text: str | None) -> Brackets:
    if text is None:
        return NO_BRACKETS
    values = json.loads(text)
    trailing = values.pop("trailing")
    return Brackets(**values, trailing=Trailing(**trailing) if trailing else None)


def _json_text(values: Any) -> str:
    return json.dumps(values, separators=(",", ":"))
