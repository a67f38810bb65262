"""Saved layouts and templates, always by owner."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from trading_api.kernel.clock import from_us, to_us
from trading_api.modules.datafeed import tables
from trading_api.modules.datafeed.domain.layout import Layout, Owner, TemplateKey, TemplateKind
from trading_api.runtime.database import Transaction

_layouts = tables.chart_layouts
_templates = tables.chart_templates


class LayoutRepository:
    """Queries of chart storage."""

    async def list_layouts(self, transaction: Transaction, owner: Owner) -> list[Layout]:
        """Return an owner's layouts without their content, the newest first."""
        rows = await transaction.all(
            sa.select(
                _layouts.c.id,
                _layouts.c.name,
                _layouts.c.symbol,
                _layouts.c.resolution,
                _layouts.c.saved_at_us,
            )
            .where(_of(_layouts, owner))
            .order_by(_layouts.c.saved_at_us.desc(), _layouts.c.id.desc())
        )
        return [
            Layout(row.id, row.name, row.symbol, row.resolution, "", from_us(row.saved_at_us))
            for row in rows
        ]

    async def find_layout(
        self, transaction: Transaction, owner: Owner, layout_id: str
    ) -> Layout | None:
        """Return one whole layout; None where the owner has none of that id."""
        row = await transaction.first(
            sa.select(_layouts).where(_of(_layouts, owner), _layouts.c.id == layout_id)
        )
        if row is None:
            return None
        return Layout(
            row.id, row.name, row.symbol, row.resolution, row.content, from_us(row.saved_at_us)
        )

    async def add_layout(self, transaction: Transaction, owner: Owner, layout: Layout) -> None:
        """Insert a layout."""
        await transaction.execute(
            _layouts.insert(),
            {"id": layout.id, "user_id": owner.user_id, "client": owner.client, **_values(layout)},
        )

    async def save_layout(self, transaction: Transaction, owner: Owner, layout: Layout) -> bool:
        """Overwrite a layout; return whether the owner has it."""
        result = await transaction.execute(
            _layouts.update()
            .where(_of(_layouts, owner), _layouts.c.id == layout.id)
            .values(_values(layout))
        )
        return result.rowcount == 1

    async def remove_layout(self, transaction: Transaction, owner: Owner, layout_id: str) -> bool:
        """Delete a layout; return whether the owner had it."""
        result = await transaction.execute(
            _layouts.delete().where(_of(_layouts, owner), _layouts.c.id == layout_id)
        )
        return result.rowcount == 1

    async def list_templates(
        self, transaction: Transaction, owner: Owner, kind: TemplateKind, tool: str
    ) -> Sequence[str]:
        """Return the names of an owner's templates of one kind and tool, ascending."""
        rows = await transaction.all(
            sa.select(_templates.c.name)
            .where(_of(_templates, owner), _templates.c.kind == kind, _templates.c.tool == tool)
            .order_by(_templates.c.name)
        )
        return [row.name for row in rows]

    async def find_template(
        self, transaction: Transaction, owner: Owner, key: TemplateKey
    ) -> str | None:
        """Return a template's content; None where there is none of that name."""
        content: str | None = await transaction.scalar(
            sa.select(_templates.c.content).where(_of(_templates, owner), _is(key))
        )
        return content

    async def save_template(
        self, transaction: Transaction, owner: Owner, key: TemplateKey, content: str, *, now_us: int
    ) -> None:
        """Insert a template, or overwrite the one of its name."""
        insert = postgresql.insert if transaction.dialect == "postgresql" else sqlite.insert
        await transaction.execute(
            insert(_templates)
            .values(
                user_id=owner.user_id,
                client=owner.client,
                kind=str(key.kind),
                tool=key.tool,
                name=key.name,
                content=content,
                saved_at_us=now_us,
            )
            .on_conflict_do_update(
                index_elements=["user_id", "client", "kind", "tool", "name"],
                set_={"content": content, "saved_at_us": now_us},
            )
        )

    async def remove_template(
        self, transaction: Transaction, owner: Owner, key: TemplateKey
    ) -> bool:
        """Delete a template; return whether there was one."""
        result = await transaction.execute(
            _templates.delete().where(_of(_templates, owner), _is(key))
        )
        return result.rowcount == 1

    async def count(self, transaction: Transaction, user_id: str) -> tuple[int, int, int]:
        """Return a user's layouts, templates, and the characters of all their contents."""
        layouts = await transaction.scalar(
            sa.select(sa.func.count()).select_from(_layouts).where(_layouts.c.user_id == user_id)
        )
        templates = await transaction.scalar(
            sa.select(sa.func.count())
            .select_from(_templates)
            .where(_templates.c.user_id == user_id)
        )
        stored = 0
        for table in (_layouts, _templates):
            length = sa.func.coalesce(sa.func.sum(sa.func.length(table.c.content)), 0)
            found = await transaction.scalar(sa.select(length).where(table.c.user_id == user_id))
            stored += int(found or 0)
        return layouts or 0, templates or 0, stored


def _of(table: sa.Table, owner: Owner) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.user_id == owner.user_id, table.c.client == owner.client)


def _is(key: TemplateKey) -> sa.ColumnElement[bool]:
    return sa.and_(
        _templates.c.kind == str(key.kind),
        _templates.c.tool == key.tool,
        _templates.c.name == key.name,
    )


def _values(layout: Layout) -> dict[str, object]:
    return {
        "name": layout.name,
        "symbol": layout.symbol,
        "resolution": layout.resolution,
        "content": layout.content,
        "saved_at_us": to_us(layout.saved_at),
    }
