"""The internal endpoint where consumers catch up on a module's facts; nginx routes no such path."""

from typing import Annotated

from fastapi import Query

from trading_api.contracts.envelope import Envelope
from trading_api.runtime.database import Database, Outbox
from trading_api.runtime.http.access import Access
from trading_api.runtime.http.routing import ModuleRouter
from trading_api.runtime.http.wire import ResponseModel

LIMIT_DEFAULT = 500
LIMIT_MAX = 1000


class FactsPage(ResponseModel):
    """Facts of one producer, oldest first.

    Attributes:
        first: the oldest sequence still kept; 0 where there is none.
        last: the newest sequence given so far; 0 where there is none.
    """

    facts: list[Envelope]
    first: int
    last: int


def facts_path(producer: str) -> str:
    """Return the path of a module's facts."""
    return f"/internal/v1/{producer}/facts"


def facts_router(outbox: Outbox, database: Database) -> ModuleRouter:
    """Build the route that hands out a module's facts by their sequence."""
    router = ModuleRouter(tags=["internal"])

    @router.get(
        facts_path(outbox.producer),
        access=Access.internal(),
        response_model=FactsPage,
        include_in_schema=False,
        summary="Facts behind a sequence",
    )
    async def list_facts(
        after: Annotated[int, Query(ge=0, le=2**62, description="the last sequence known")] = 0,
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT,
    ) -> FactsPage:
        async with database.snapshot() as snapshot:
            facts = await outbox.list_after(snapshot, sequence=after, limit=limit)
            first, last = await outbox.get_range(snapshot)
        return FactsPage(facts=facts, first=first, last=last)

    return router
