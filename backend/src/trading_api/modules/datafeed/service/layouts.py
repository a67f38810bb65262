"""Chart storage: each user's layouts and templates, nobody else's."""

from collections.abc import Sequence
from datetime import datetime

from trading_api.kernel.clock import to_us
from trading_api.kernel.ids import IdSource
from trading_api.modules.datafeed.domain.layout import (
    LAYOUTS_MAX,
    STORED_BYTES_MAX,
    TEMPLATES_MAX,
    Layout,
    Owner,
    TemplateKey,
    TemplateKind,
)
from trading_api.modules.datafeed.errors import (
    ChartStorageFullError,
    LayoutNotFoundError,
    TemplateNotFoundError,
)
from trading_api.modules.datafeed.repository.layouts import LayoutRepository
from trading_api.runtime.database import Database, Transaction


class LayoutService:
    """Saves, lists, loads and removes; each is one transaction."""

    def __init__(self, *, database: Database, repository: LayoutRepository, ids: IdSource) -> None:
        self._database = database
        self._repository = repository
        self._ids = ids

    async def list_layouts(self, *, owner: Owner) -> Sequence[Layout]:
        """Return the owner's layouts without content, newest first."""
        async with self._database.snapshot() as snapshot:
            return await self._repository.list_layouts(snapshot, owner)

    async def get_layout(self, *, owner: Owner, layout_id: str) -> Layout:
        """Return a layout.

        Raises:
            LayoutNotFoundError: the owner has none of that id.
        """
        async with self._database.snapshot() as snapshot:
            found = await self._repository.find_layout(snapshot, owner, layout_id)
        if found is None:
            raise _no_layout()
        return found

    async def save_layout(
        self,
        *,
        owner: Owner,
        layout_id: str | None,
        name: str,
        symbol: str,
        resolution: str,
        content: str,
        now: datetime,
    ) -> str:
        """Save a new layout, or overwrite one; return its id.

        Raises:
            LayoutNotFoundError: the owner has none of that id.
            ChartStorageFullError: the owner has as many, or as much, as is allowed.
        """
        layout = Layout(layout_id or self._ids.new("cht"), name, symbol, resolution, content, now)

        async def command(transaction: Transaction) -> str:
            if layout_id is not None:
                if not await self._repository.save_layout(transaction, owner, layout):
                    raise _no_layout()
            else:
                await self._repository.add_layout(transaction, owner, layout)
            await self._ensure_room(transaction, owner)
            return layout.id

        return await self._database.run(command)

    async def remove_layout(self, *, owner: Owner, layout_id: str) -> None:
        """Delete a layout.

        Raises:
            LayoutNotFoundError: the owner has none of that id.
        """

        async def command(transaction: Transaction) -> bool:
            return await self._repository.remove_layout(transaction, owner, layout_id)

        if not await self._database.run(command):
            raise _no_layout()

    async def list_templates(
        self, *, owner: Owner, kind: TemplateKind, tool: str = ""
    ) -> Sequence[str]:
        """Return the names of the owner's templates, ascending."""
        async with self._database.snapshot() as snapshot:
            return await self._repository.list_templates(snapshot, owner, kind, tool)

    async def get_template(self, *, owner: Owner, key: TemplateKey) -> str:
        """Return a template's content.

        Raises:
            TemplateNotFoundError: there is none of that name.
        """
        async with self._database.snapshot() as snapshot:
            found = await self._repository.find_template(snapshot, owner, key)
        if found is None:
            raise _no_template()
        return found

    async def save_template(
        self, *, owner: Owner, key: TemplateKey, content: str, now: datetime
    ) -> None:
        """Save a template in place of one of its name; repeating it changes nothing.

        Raises:
            ChartStorageFullError: the owner has as many, or as much, as is allowed.
        """

        async def command(transaction: Transaction) -> None:
            await self._repository.save_template(
                transaction, owner, key, content, now_us=to_us(now)
            )
            await self._ensure_room(transaction, owner)

        await self._database.run(command)

    async def remove_template(self, *, owner: Owner, key: TemplateKey) -> None:
        """Delete a template.

        Raises:
            TemplateNotFoundError: there is none of that name.
        """

        async def command(transaction: Transaction) -> bool:
            return await self._repository.remove_template(transaction, owner, key)

        if not await self._database.run(command):
            raise _no_template()

    async def _ensure_room(self, transaction: Transaction, owner: Owner) -> None:
        """Refuse what was just written where it is too much; the transaction takes it back."""
        layouts, templates, stored = await self._repository.count(transaction, owner.user_id)
        for count, limit, what in (
            (layouts, LAYOUTS_MAX, "layouts"),
            (templates, TEMPLATES_MAX, "templates"),
            (stored // 1024, STORED_BYTES_MAX // 1024, "KiB of charts"),
        ):
            if count > limit:
                raise ChartStorageFullError(
                    f"you may keep {limit} {what}; remove some first", limit=limit
                )


def _no_layout() -> LayoutNotFoundError:
    return LayoutNotFoundError("you have no saved chart of that id")


def _no_template() -> TemplateNotFoundError:
    return TemplateNotFoundError("you have no template of that name")
