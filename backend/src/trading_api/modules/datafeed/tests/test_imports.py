"""Imports into a real database: whole or not at all, resumable, joined with what is there."""

import dataclasses
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import sqlalchemy as sa

from trading_api.kernel.ids import UuidV7Ids
from trading_api.ledger.checks import Violation
from trading_api.modules.datafeed import tables
from trading_api.modules.datafeed.adapters.bar_files import BarFiles
from trading_api.modules.datafeed.adapters.bar_formats import digest_of, source_of
from trading_api.modules.datafeed.adapters.bundled import BundledHistory
from trading_api.modules.datafeed.commands import ImportCommand
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.importing import Batch, ImportSpec, Reached
from trading_api.modules.datafeed.domain.instrument import Exchange
from trading_api.modules.datafeed.errors import (
    ImportBusyError,
    ImportMismatchError,
    ImportRefusedError,
    InstrumentNotFoundError,
    MarketDataMissingError,
)
from trading_api.modules.datafeed.repository import BarRepository, MarketRepository
from trading_api.modules.datafeed.repository.checks import check_market_data
from trading_api.modules.datafeed.service import (
    DatafeedService,
    ExportService,
    ImportReport,
    ImportRequest,
    ImportService,
)
from trading_api.modules.datafeed.service import imports as imports_module
from trading_api.modules.datafeed.service import store as store_module
from trading_api.modules.datafeed.tests.builders import an_instrument
from trading_api.modules.datafeed.tests.conftest import (
    NOW,
    a_service,
    an_app,
    an_instrument_service,
    token_of,
)
from trading_api.modules.datafeed.tests.test_importing import HEAD, SPEC, equal, some_bars
from trading_api.modules.datafeed.tests.test_instruments import SomeHistory
from trading_api.runtime.database import Database
from trading_api.runtime.http import Access
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock

INSTRUMENT = dataclasses.replace(
    an_instrument(exchange=Exchange.HIST, ticker="OURS"), series_id="ours-1"
)


class Desk:
    """The services over one database, and files of bars."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.market = DatafeedService(
            database=database,
            repository=MarketRepository(),
            history=BundledHistory(),
            files=BarFiles(folder / "bars"),
        )
        self.imports = ImportService(database=database, market=self.market, ids=UuidV7Ids())
        self.instruments = an_instrument_service(database, self.market, FixedClock(NOW))

    def file(self, bars: Columns, *, name: str = "bars.csv", extra: str = "") -> Path:
        lines = [
            f"{time},{open_ / 100:.2f},{high / 100:.2f},{low / 100:.2f},{close / 100:.2f},{volume}"
            for time, open_, high, low, close, volume in np.stack(bars.arrays(), axis=1).tolist()
        ]
        path = self.folder / name
        path.write_text(HEAD + "\n".join(lines) + "\n" + extra)
        return path

    def request(self, path: Path, **changes: object) -> ImportRequest:
        request = ImportRequest(
            series_id="ours-1",
            resolution="1",
            source_name=path.name,
            source_sha256=digest_of(path),
        )
        return dataclasses.replace(request, **changes)  # type: ignore[arg-type]

    async def load(self, path: Path, **changes: object) -> ImportReport:
        report = await self.imports.import_bars(
            request=self.request(path, **changes), source=source_of(path), now=NOW
        )
        await self.list_()
        return report

    async def list_(self) -> None:
        if await self.instruments.ensure_listable(instrument=INSTRUMENT):
            await self.instruments.list_instrument(
                instrument=INSTRUMENT, operator_id="usr_o", idempotency_key=None, now=NOW
            )

    async def stored(self) -> Columns:
        _, pieces = await ExportService(market=self.market).begin(
            symbol="HIST:OURS", resolution="1", from_time=0, to_time=10**10, now=NOW
        )
        return Columns.concat([piece async for piece in pieces])

    async def faults(self) -> list[Violation]:
        async with self.database.snapshot() as snapshot:
            return await check_market_data(snapshot)

    async def versions(self) -> set[int]:
        """Return the versions that have chunks."""
        async with self.database.snapshot() as snapshot:
            rows = await snapshot.all(sa.select(tables.series_chunks.c.version).distinct())
        return {row.version for row in rows}


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(store_module, "IN_MEMORY_BARS_MAX", 5_000)
    monkeypatch.setattr(imports_module, "BARS_PER_COMMIT", 2_000)
    return Desk(empty_database, tmp_path)


async def test_an_import_is_served_and_again_changes_nothing(desk: Desk) -> None:
    bars = some_bars(6_000)
    path = desk.file(bars)
    report = await desk.load(path)
    assert (report.series_bars, report.record.bad_count, report.was_done) == (6_000, 0, False)
    assert equal(await desk.stored(), bars)
    assert (await desk.load(path)).was_done
    assert equal(await desk.stored(), bars)
    # Another process of the module sees it too, from its own files.
    answer = await desk.market.bars(
        symbol="OURS", resolution="60", from_time=0, to_time=10**10, count_back=1, now=NOW
    )
    assert answer.selection.bars.close.tolist() == [int(bars.close[-1])]
    assert await desk.market.write_texts() == 1


async def test_bars_of_another_database_are_never_served(desk: Desk, tmp_path: Path) -> None:
    bars, others = some_bars(6_000), some_bars(6_000, seed=2)
    await desk.load(desk.file(bars))
    assert await desk.market.write_texts() == 1
    # Emptied, and filled with as many other bars: the same series, version and count.
    async with desk.database.transaction() as transaction:
        for table in (tables.instruments, tables.imports, tables.series_chunks, tables.series):
            await transaction.execute(table.delete())
    later = Desk(desk.database, tmp_path)
    await later.imports.import_bars(
        request=later.request(later.file(others, name="others.csv")),
        source=source_of(tmp_path / "others.csv"),
        now=NOW + timedelta(seconds=1),
    )
    await later.list_()
    assert equal(await later.stored(), others)
    # As after a backup that was put back: the newest bars are others, all else is the same.
    changed = Columns(*others.arrays()[:5], volume=np.append(others.volume[:-1], 7))
    async with desk.database.transaction() as transaction:
        repository = BarRepository()
        found = await repository.read_last_chunk(transaction, "ours-1", 1)
        assert found is not None
        position, chunk = found
        await repository.replace_last_chunk(
            transaction, "ours-1", 1, position, changed[-len(chunk) :]
        )
    restored = Desk(desk.database, tmp_path)
    await restored.market.load()
    assert equal(await restored.stored(), changed)


async def test_later_bars_are_appended_and_overlapping_ones_replace(desk: Desk) -> None:
    bars = some_bars(6_000)
    for part in (bars[2_000:4_000], bars[4_000:], bars[:2_100]):
        await desk.load(desk.file(part, name=f"{part.time[0]}.csv"))
        assert await desk.faults() == []
        assert len(await desk.versions()) == 1
    assert equal(await desk.stored(), bars)
    corrected = bars[100:200]
    corrected = Columns(*corrected.arrays()[:5], volume=corrected.volume + 1)
    await desk.load(desk.file(corrected, name="corrected.csv"))
    now = await desk.stored()
    assert equal(Columns(*now.arrays()[:5], volume=bars.volume), bars)
    assert (now.volume - bars.volume).tolist() == [0] * 100 + [1] * 100 + [0] * 5_800


async def test_joining_holds_few_bars_wherever_the_new_ones_lie(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = some_bars(30_000)
    every_other = Columns(*(column[20_000::2] for column in bars.arrays()))
    await desk.load(desk.file(every_other, name="first.csv"))
    written: list[int] = []
    add_chunks = BarRepository.add_chunks

    async def note(self: BarRepository, *arguments: Any) -> int:
        written.append(len(arguments[-1]))
        return await add_chunks(self, *arguments)

    monkeypatch.setattr(BarRepository, "add_chunks", note)
    await desk.load(desk.file(bars, name="second.csv"))
    assert equal(await desk.stored(), bars)
    own, *joined = written
    assert own == sum(joined) == 30_000
    # What one commit has at least, and a chunk of either side on top.
    assert max(joined) <= 2_000 + 2 * tables.BARS_PER_CHUNK


async def test_a_crash_behind_the_publishing_leaves_every_bar_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = some_bars(6_000)
    await desk.load(desk.file(bars[:4_000], name="first.csv"))

    async def crash(_: object) -> None:
        raise ConnectionError("the process ended")

    path = desk.file(bars[3_000:], name="second.csv")
    with monkeypatch.context() as patched:
        patched.setattr(desk.imports, "_drop_leftovers", crash)
        with pytest.raises(ConnectionError):
            await desk.load(path)
    assert len(await desk.versions()) == 3
    assert await desk.faults() == []
    await desk.market.load()
    assert equal(await desk.stored(), bars)
    assert (await desk.load(path)).was_done
    assert len(await desk.versions()) == 1
    assert equal(await desk.stored(), bars)


async def test_two_runs_that_join_at_once_publish_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = some_bars(6_000)
    await desk.load(desk.file(bars[:4_000], name="first.csv"))
    path = desk.file(bars[3_000:], name="second.csv")
    prepare = desk.imports._prepare

    async def prepare_slowly(*arguments: Any) -> tuple[int, int]:
        monkeypatch.setattr(desk.imports, "_prepare", prepare)
        prepared = await prepare(*arguments)
        await desk.load(path)
        return prepared

    monkeypatch.setattr(desk.imports, "_prepare", prepare_slowly)
    with pytest.raises(ImportBusyError):
        await desk.load(path)
    assert await desk.faults() == []
    assert equal(await desk.stored(), bars)


async def test_one_bad_line_imports_nothing_unless_bad_ones_are_skipped(desk: Desk) -> None:
    path = desk.file(some_bars(5_000), extra="299999940,0,0,0,0,0\nx\n")
    with pytest.raises(ImportRefusedError) as caught:
        await desk.load(path)
    assert [(each.field, each.message) for each in caught.value.errors] == [
        ("line 5002", "a price is zero or negative"),
        ("line 5003", "open is missing"),
    ]
    with pytest.raises((InstrumentNotFoundError, MarketDataMissingError)):
        await desk.stored()
    (refused,) = await desk.imports.list_imports(limit=5)
    assert (refused.state, refused.bad_count) == ("REFUSED", 2)
    assert (await desk.load(path, skips_bad=True)).series_bars == 5_000


class BreakingFile:
    """A file whose reading fails after some batches."""

    def __init__(self, path: Path, batches: int) -> None:
        self._source = source_of(path)
        self._batches = batches
        self.size = self._source.size

    def guess_decimals(self) -> tuple[int, int]:
        return self._source.guess_decimals()

    def read(self, spec: ImportSpec, reached: Reached) -> Iterator[Batch]:
        for number, batch in enumerate(self._source.read(spec, reached)):
            if number == self._batches:
                raise ConnectionError("the disk went away")
            yield batch


async def test_an_interrupted_import_shows_nothing_and_goes_on_where_it_stopped(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trading_api.modules.datafeed.adapters import bar_formats

    monkeypatch.setattr(bar_formats, "_BLOCK_BYTES", 100_000)
    bars = some_bars(6_000)
    path = desk.file(bars)
    with pytest.raises(ConnectionError):
        await desk.imports.import_bars(
            request=desk.request(path), source=BreakingFile(path, 2), now=NOW
        )
    (record,) = await desk.imports.list_imports(limit=5)
    assert record.state == "RUNNING"
    assert 0 < record.bar_count < 6_000
    with pytest.raises((InstrumentNotFoundError, MarketDataMissingError)):
        await desk.market.load()
        await desk.stored()
    first: list[int] = []
    await desk.imports.import_bars(
        request=desk.request(path),
        source=source_of(path),
        now=NOW,
        on_progress=lambda progress, _: first.append(progress.bar_count),
    )
    assert first[0] > record.bar_count
    await desk.list_()
    assert equal(await desk.stored(), bars)


async def test_a_seed_leaves_what_operators_imported_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trading_api.modules.datafeed.adapters import bar_formats

    async def seed() -> None:
        market = a_service(desk.database, history=SomeHistory())
        await market.seed(now=NOW, demo_seed="tests")

    async def count(series_id: str) -> int:
        async with desk.database.snapshot() as snapshot:
            found = await BarRepository().find_series(snapshot, series_id)
        return found.bar_count if found else 0

    monkeypatch.setattr(bar_formats, "_BLOCK_BYTES", 100_000)
    await seed()
    bundled = {each: await count(each) for each in ("ibm-1d", "aapl-1d")}
    minutes = some_bars(6_000)
    path = desk.file(dataclasses.replace(minutes, time=minutes.time * 1_440))
    ours = desk.request(path, series_id="ibm-1d", resolution="1D")
    await desk.imports.import_bars(request=ours, source=source_of(path), now=NOW)
    # Another bundled version comes while an import into its series is under way.
    theirs = dataclasses.replace(ours, series_id="aapl-1d")
    with pytest.raises(ConnectionError):
        await desk.imports.import_bars(request=theirs, source=BreakingFile(path, 2), now=NOW)
    async with desk.database.transaction() as transaction:
        await transaction.execute(
            tables.series.update()
            .where(tables.series.c.id == "aapl-1d")
            .values(source_sha256="older")
        )
    await seed()
    assert await count("ibm-1d") == bundled["ibm-1d"] + 6_000
    await desk.imports.import_bars(request=theirs, source=source_of(path), now=NOW)
    await seed()
    assert await count("aapl-1d") == bundled["aapl-1d"] + 6_000
    assert await desk.faults() == []


async def test_imports_of_two_scales_into_one_new_series_are_refused(desk: Desk) -> None:
    first, second = (desk.file(some_bars(100, seed), name=f"{seed}.csv") for seed in (1, 2))
    begun = desk.request(second, price_decimals=3)
    await desk.imports._begin(begun, source_of(second), NOW)
    await desk.load(first)
    with pytest.raises(ImportMismatchError):
        await desk.imports.import_bars(request=begun, source=source_of(second), now=NOW)
    # Nor where the other one is done in between.
    record = await desk.imports._begin(desk.request(second), source_of(second), NOW)
    assert record.price_decimals == 2
    with pytest.raises(ImportMismatchError):
        await desk.imports._publish(dataclasses.replace(record, price_decimals=3), begun, NOW)


async def test_two_runs_of_one_import_never_mix(desk: Desk) -> None:
    path = desk.file(some_bars(6_000))
    started = await desk.imports._begin(desk.request(path), source_of(path), NOW)
    await desk.load(path)
    batches = list(source_of(path).read(SPEC, Reached()))
    with pytest.raises(ImportBusyError):
        await desk.imports._store(started, batches, NOW)
    assert equal(await desk.stored(), some_bars(6_000))


async def test_a_file_of_another_kind_is_refused(desk: Desk) -> None:
    await desk.load(desk.file(some_bars(10)))
    other = desk.file(some_bars(20, seed=2), name="other.csv")
    for changes in ({"resolution": "5"}, {"price_decimals": 3}, {"volume_decimals": 1}):
        with pytest.raises(ImportMismatchError):
            await desk.load(other, **changes)


async def test_a_history_streams_out_in_every_format(client: httpx.AsyncClient) -> None:
    path = "/api/v1/datafeed/export?symbol=HIST:IBM&resolution=1D"
    answer = await client.get(path)
    assert answer.status_code == 200
    lines = answer.text.splitlines()
    assert len(lines) == 3_271
    assert answer.headers["content-disposition"] == 'attachment; filename="HIST-IBM-1D.csv"'
    days = await client.get("/api/v1/datafeed/bars?symbol=HIST:IBM&resolution=1D&count_back=2")
    last = days.json()["bars"][-1]
    assert [float(each) for each in lines[-1].split(",")] == [
        last["time"] / 1_000, *(last[name] for name in ("open", "high", "low", "close", "volume"))
    ]  # fmt: skip
    for format_, magic in (("parquet", b"PAR1"), ("arrow", b"\xff\xff\xff\xff")):
        answer = await client.get(f"{path}&format={format_}")
        assert answer.content.startswith(magic)
    assert (await client.get(f"{path}&from=2&to=1")).status_code == 422
    live = await client.get("/api/v1/datafeed/export?symbol=AAPL&resolution=60&from=1763700000")
    times = [int(line.split(",")[0]) for line in live.text.splitlines()[1:]]
    assert times == list(range(1763701200, int(NOW.timestamp()) // 3_600 * 3_600, 3_600))


async def test_only_operators_import(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/api/v1/datafeed/import?series=x-1&resolution=1",
        content=HEAD,
        headers={"Content-Type": "text/csv"},
    )
    assert answer.status_code == 403, json.dumps(answer.json())


async def test_an_operator_uploads_a_file_and_reads_what_became_of_it(
    desk: Desk, host_settings: PlatformSettings, market_clock: FixedClock
) -> None:
    app = an_app(
        desk.market,
        host_settings,
        market_clock,
        Access.public(),
        imports=desk.imports,
        spool=desk.folder / "uploads",
    )
    token = token_of(host_settings, market_clock, "datafeed:manage")
    path = desk.file(some_bars(3_000))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),
        base_url="http://tests",
        headers={"Authorization": f"Bearer {token}", "Content-Type": "text/csv"},
    ) as operator:
        url = "/api/v1/datafeed/import?series=ours-1&resolution=1&source=bars.csv"
        answer = await operator.post(url, content=path.read_bytes())
        assert answer.status_code == 200, answer.text
        assert (answer.json()["state"], answer.json()["bars"]) == ("DONE", 3_000)
        refused = await operator.post(url, content=f"{HEAD}1,2\n")
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == "line 2"
        listed = (await operator.get("/api/v1/datafeed/imports")).json()
        assert {each["state"] for each in listed} == {"DONE", "REFUSED"}
    assert not list((desk.folder / "uploads").iterdir())


async def test_the_verb_imports_and_names_bad_lines(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    verb = ImportCommand(
        imports=desk.imports,
        instruments=desk.instruments,
        clock=FixedClock(NOW),
        open_source=source_of,
        digest_of=digest_of,
    )
    options = ["--series", "ours-1", "--resolution", "1", "--ticker", "OURS"]
    good = desk.file(some_bars(3_000))
    assert await verb.run([str(good), *options]) == 0
    assert "3,000 bars imported" in capsys.readouterr().out
    assert len(await desk.stored()) == 3_000
    assert await verb.run([str(good), *options]) == 0
    assert "is in ours-1 already" in capsys.readouterr().out
    bad = desk.file(some_bars(10), name="bad.csv", extra="x\n")
    assert await verb.run([str(bad), *options]) == 65
    shown = capsys.readouterr().out
    assert "12" in shown
    assert "open is missing" in shown
    assert await verb.run([str(desk.folder / "none.csv"), *options]) == 1
    # What it lists keeps the operators' rules, before the file is read, and is told as theirs.
    other = desk.file(some_bars(20), name="other.csv")
    for ticker, session, reason in (
        ("OURS", "24x7", "is or was listed"),
        ("NO WAY", "24x7", "a ticker is"),
        ("OTHER", "whenever", "not a session"),
    ):
        options = ["--series", "other-1", "--resolution", "1", "--ticker", ticker]
        assert await verb.run([str(other), *options, "--session", session]) == 1
        assert reason in capsys.readouterr().out
    # The series' decimals are the instrument's, whatever a file's beginning needs.
    whole = desk.folder / "whole.csv"
    whole.write_text(f"{HEAD}60000000,1,1,1,1,1\n")
    options = ["--series", "ours-1", "--resolution", "1", "--ticker", "AGAIN"]
    assert await verb.run([str(whole), *options]) == 0
    async with desk.database.snapshot() as snapshot:
        assert [each.id for each in await desk.imports.list_imports(limit=9)][3:] == []
        rows = await snapshot.all(sa.select(tables.outbox_table).order_by(tables.outbox_table.c.id))
    told = [json.loads(row.data) for row in rows]
    assert [(each["instrument"], each["change"]) for each in told] == [
        ("HIST:OURS", "listed"),
        ("HIST:AGAIN", "listed"),
    ]
    assert (told[1]["changed_by"], told[1]["after"]["price_decimals"]) == ("trading-api import", 2)
    assert await desk.faults() == []
