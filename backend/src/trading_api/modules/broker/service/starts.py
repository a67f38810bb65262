"""The first point of an account's equity curve: where it begins, and where it begins anew."""

from trading_api.modules.broker.domain.account import compute_valuation
from trading_api.modules.broker.domain.performance import point_of
from trading_api.modules.broker.repository.samples import SampleRepository
from trading_api.modules.broker.service.desk import Desk


async def add_start(desk: Desk, cash_minor: int) -> None:
    """Sample an account that holds nothing at the instant it begins, in its own transaction."""
    worth = compute_valuation(cash_minor=cash_minor, positions=desk.positions.values(), quotes={})
    point = point_of(
        worth, exposure_minor=0, sequence=desk.account.event_sequence, at=desk.account.begun_at
    )
    await SampleRepository().add_samples(desk.transaction, [(desk.account.account_id, point)])
