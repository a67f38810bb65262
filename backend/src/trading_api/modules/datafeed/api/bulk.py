"""Bulk routes: export for whoever may read bars, import for operators."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from trading_api.kernel.clock import Clock
from trading_api.modules.datafeed import schemas
from trading_api.modules.datafeed.domain.columns import EMPTY, Columns
from trading_api.modules.datafeed.domain.importing import DECIMALS_MAX, SERIES_ID
from trading_api.modules.datafeed.errors import (
    ImportBusyError,
    ImportMismatchError,
    ImportRefusedError,
    ImportUnreadableError,
    InstrumentNotFoundError,
    MarketDataMissingError,
    ResolutionUnsupportedError,
    WindowInvalidError,
)
from trading_api.modules.datafeed.ports import BarSource
from trading_api.modules.datafeed.service import ExportService, ImportRequest, ImportService
from trading_api.modules.datafeed.service.market import TIME_MAX
from trading_api.runtime.http import Access, ModuleRouter

_MANAGE = Access.scope("datafeed:manage")

UPLOAD_BYTES_MAX = 4 * 1024 * 1024 * 1024
"""As far as the edge's own limit can be set; what it lets through is spooled to disk."""

_PIECE_BYTES = 256 * 1024
_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}

Format = Literal["csv", "parquet", "arrow"]
Writer = tuple[bytes, Callable[[Columns], bytes], Callable[[Columns], bytes]]
MakeWriter = Callable[[Format, int, int], Writer]
OpenSource = Callable[[Path, str], BarSource]


def build_bulk_router(
    *,
    imports: ImportService,
    exports: ExportService,
    clock: Clock,
    access: Access,
    spool: Path,
    make_writer: MakeWriter,
    open_source: OpenSource,
    digest_of: Callable[[Path], str],
) -> ModuleRouter:
    """Build the bulk routes.

    Args:
        access: who may read market data.
        spool: directory that uploads are kept in while they are read.
        make_writer: makes an export's writer from format and decimals.
        open_source: opens an upload by its format.
        digest_of: returns a file's SHA-256.
    """
    router = ModuleRouter(tags=["datafeed"])

    @router.get(
        "/export",
        access=access,
        response_class=StreamingResponse,
        responses={
            200: {
                "content": {
                    each.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}}
                    for each in _TYPES.values()
                }
            }
        },
        errors=[
            InstrumentNotFoundError,
            ResolutionUnsupportedError,
            WindowInvalidError,
            MarketDataMissingError,
        ],
        summary="Stream the finished bars of any stretch as a file",
    )
    async def export_bars(
        symbol: Annotated[schemas.SymbolText, Query()],
        resolution: Annotated[schemas.ResolutionText, Query()],
        from_: Annotated[int, Query(alias="from", description="seconds, inclusive")] = 0,
        to: Annotated[int | None, Query(description="seconds, exclusive; now where absent")] = None,
        format: Annotated[Format, Query()] = "csv",  # noqa: A002 - the wire's name
    ) -> StreamingResponse:
        now = clock.now()
        instrument, pieces = await exports.begin(
            symbol=symbol,
            resolution=resolution,
            from_time=from_,
            to_time=min(TIME_MAX, int(now.timestamp()) + 1) if to is None else to,
            now=now,
        )
        writer = await asyncio.to_thread(
            make_writer, format, instrument.price_decimals, instrument.volume_decimals
        )
        ending = {"parquet": "parquet", "arrow": "arrows"}.get(format, "csv")
        name = f"{instrument.symbol}-{resolution}.{ending}".replace(":", "-")
        safe = "".join(each if each.isalnum() or each in "-._" else "_" for each in name)
        return StreamingResponse(
            _written(writer, pieces),
            media_type=_TYPES[format],
            headers={"Content-Disposition": f'attachment; filename="{safe}"'},
        )

    @router.post(
        "/import",
        access=_MANAGE,
        body="any",
        body_limit_bytes=UPLOAD_BYTES_MAX,
        response_model=schemas.ImportView,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "text/csv": {"schema": {"type": "string"}},
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                },
            }
        },
        errors=[
            ImportUnreadableError,
            ImportRefusedError,
            ImportMismatchError,
            ImportBusyError,
            ResolutionUnsupportedError,
        ],
        summary="Import a file of bars into a series, all of it or nothing",
    )
    async def import_bars(
        request: Request,
        series: Annotated[str, Query(pattern=f"^{SERIES_ID}$", description="made where new")],
        resolution: Annotated[schemas.ResolutionText, Query()],
        format: Annotated[Literal["csv", "parquet"], Query()] = "csv",  # noqa: A002
        price_decimals: Annotated[int | None, Query(ge=0, le=DECIMALS_MAX)] = None,
        volume_decimals: Annotated[int | None, Query(ge=0, le=DECIMALS_MAX)] = None,
        source: Annotated[str, Query(max_length=200)] = "upload",
        license: Annotated[str, Query(max_length=200)] = "unknown",  # noqa: A002
        skip_bad: Annotated[bool, Query(description="import the good lines anyway")] = False,
    ) -> Response:
        await asyncio.to_thread(spool.mkdir, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=spool, suffix=f".{format}") as file:
            async for piece in request.stream():
                await asyncio.to_thread(file.write, piece)
            file.flush()
            path = Path(file.name)
            report = await imports.import_bars(
                request=ImportRequest(
                    series_id=series,
                    resolution=resolution,
                    price_decimals=price_decimals,
                    volume_decimals=volume_decimals,
                    source_name=source,
                    source_sha256=await asyncio.to_thread(digest_of, path),
                    license=license,
                    skips_bad=skip_bad,
                ),
                source=await asyncio.to_thread(open_source, path, format),
                now=clock.now(),
            )
        view = schemas.import_view(report.record)
        return Response(view.model_dump_json(), media_type="application/json")

    @router.get(
        "/imports",
        access=_MANAGE,
        response_model=list[schemas.ImportView],
        summary="List the newest imports with their bad lines",
    )
    async def list_imports(
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> list[schemas.ImportView]:
        return [schemas.import_view(each) for each in await imports.list_imports(limit=limit)]

    return router


async def _written(writer: Writer, pieces: AsyncIterator[Columns]) -> AsyncIterator[bytes]:
    """Yield a file's bytes in pieces of some size."""
    begin, make, end = writer
    held, size = [begin], len(begin)
    async for bars in pieces:
        made = make(bars)
        held.append(made)
        size += len(made)
        if size >= _PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join([*held, end(EMPTY)])
