"""Peers that the benchmarks compare us with: a bare ASGI app, and the usual FastAPI with an ORM."""

import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

BODY = b"x" * 256


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Answer 256 bytes and nothing else: what the server itself costs."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    headers = [(b"content-type", b"application/json"), (b"content-length", b"256")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


class _Base(DeclarativeBase):
    pass


class BarRow(_Base):
    """One bar as the usual backend keeps it."""

    __tablename__ = "bars"

    time: Mapped[int] = mapped_column(primary_key=True)
    open: Mapped[float]
    high: Mapped[float]
    low: Mapped[float]
    close: Mapped[float]
    volume: Mapped[float]


class BarModel(BaseModel):
    """One bar as the usual backend answers it."""

    model_config = ConfigDict(from_attributes=True)

    time: int
    open: float
    high: float
    low: float
    close: float
    volume: float


engine = create_async_engine(os.environ.get("BENCH_DATABASE_URL", "sqlite+aiosqlite:///:memory:"))
sessions = async_sessionmaker(engine)
orm = FastAPI()


async def _session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


@orm.get("/bars")
async def read_bars(limit: int = 5000, session: AsyncSession = Depends(_session)) -> list[BarModel]:
    """Answer bars the usual way: rows to objects, objects to models, models to JSON."""
    rows = await session.scalars(select(BarRow).order_by(BarRow.time.desc()).limit(limit))
    return [BarModel.model_validate(row) for row in rows]


async def fill(count: int) -> None:
    """Make the table and its bars."""
    async with engine.begin() as connection:
        await connection.run_sync(_Base.metadata.create_all)
    async with sessions.begin() as session:
        session.add_all(
            BarRow(time=i * 60, open=1.5, high=2.5, low=0.5, close=1.7, volume=1000.0)
            for i in range(count)
        )
    await engine.dispose()
