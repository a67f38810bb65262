"""The broker's executions, asked over its internal route in the user's name."""

from collections.abc import Sequence
from datetime import datetime

import httpx
from pydantic import ValidationError

from trading_api.contracts.broker import EXECUTION_MARKS_PATH, ExecutionMarksAnswer
from trading_api.kernel.clock import to_us
from trading_api.kernel.errors import UnavailableError
from trading_api.modules.datafeed.domain.mark import OwnExecution
from trading_api.runtime.peers import PeerClient

TIMEOUT_SECONDS = 1.5


class BrokerExecutions:
    """An ``ExecutionSource``.

    Args:
        client: asks the broker's internal routes.
    """

    def __init__(self, *, client: PeerClient) -> None:
        self._client = client

    async def list_executions(
        self, *, user_id: str, symbol: str, from_: datetime, to: datetime, limit: int
    ) -> Sequence[OwnExecution]:
        """Return the user's executions of a symbol in [from_, to), the newest ``limit``.

        Raises:
            UnavailableError: the broker isn't there, or answered something else.
        """
        params: dict[str, str | int] = {
            "symbol": symbol,
            "from_us": to_us(from_),
            "to_us": to_us(to),
            "limit": limit,
        }
        response = await self._client.get(
            EXECUTION_MARKS_PATH,
            params=params,
            acting_for=user_id,
            timeout_seconds=TIMEOUT_SECONDS,
        )
        try:
            response.raise_for_status()
            answer = ExecutionMarksAnswer.model_validate_json(response.content)
        except (httpx.HTTPStatusError, ValidationError) as error:
            raise UnavailableError(
                "the broker can't tell executions right now", retry_after_seconds=1
            ) from error
        return [
            OwnExecution(
                id=each.execution_id,
                at=each.executed_at,
                is_buy=each.side == "BUY",
                quantity=each.quantity,
                price=each.price,
                is_closing=each.is_closing,
            )
            for each in answer.executions
        ]
