import json
from pathlib import Path

import pytest

from trading_api.manager.logs import LogFile, LogFilter, follow, parse_line, tail


def json_line(second: int, event: str, **fields: object) -> str:
    return json.dumps({"timestamp": f"2026-11-22T10:00:{second:02}.5Z", "event": event, **fields})


@pytest.mark.parametrize(
    ("text", "level"),
    [
        (json_line(1, "a", level="info"), "INFO"),
        (json_line(1, "a", level="critical"), "ERROR"),
        (json_line(1, "http_request", status=503), "ERROR"),
        (json_line(1, "http_request", status=404), "WARNING"),
        (json_line(1, "http_request", status=200), "INFO"),
        ("2026-11-22T10:00:01.5Z [warning  ] order_denied   reason=error", "WARNING"),
        ("2026-11-22 10:00:01.5+00:00 [debug    ] tick", "DEBUG"),
        ("2026-11-22T10:00:01.5Z started, no error", "INFO"),
    ],
)
def test_time_and_level_are_read(text, level):
    line = parse_line(text, process="x", previous=None)
    assert line.level == level
    assert line.at == 1795341601.5


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("2026/11/22 10:00:01 [error] 12#12: *1 connect() failed", "ERROR"),
        ("2026/11/22 10:00:01 [notice] 12#12: start", "INFO"),
        ("12345:M 22 Nov 2026 10:00:01.000 * Ready to accept connections", "INFO"),
        ("12345:M 22 Nov 2026 10:00:01.000 # WARNING overcommit", "WARNING"),
    ],
)
def test_lines_of_nginx_and_the_bus_are_read(text, level):
    line = parse_line(text, process="x", previous=None)
    assert line.level == level
    assert line.at > 1_790_000_000


@pytest.mark.parametrize("text", ["", "  File x, line 1", "{broken", '{"timestamp": 5}', "[1]"])
def test_line_without_time_belongs_to_the_one_before(text):
    first = parse_line(json_line(1, "boom", level="error"), process="x", previous=None)
    line = parse_line(text, process="x", previous=first)
    assert (line.at, line.level, line.text) == (first.at, "ERROR", text)


@pytest.fixture
def files(tmp_path: Path) -> list[LogFile]:
    (tmp_path / "broker.log").write_text(
        json_line(1, "first", level="info") + "\n"
        + json_line(4, "fourth", level="error", request_id="req_1") + "\n"
        + "Traceback: of the fourth\n"
    )  # fmt: skip
    (tmp_path / "wallet.log").write_text(
        json_line(2, "second", level="debug", request_id="req_1") + "\n"
        + json_line(3, "third", level="warning") + "\n"
    )  # fmt: skip
    names = ("broker", "wallet", "absent")
    return [LogFile(name, tmp_path / f"{name}.log") for name in names]


def events(lines) -> list[str]:
    return [json.loads(x.text)["event"] if x.text.startswith("{") else x.text for x in lines]


def test_tail_merges_files_by_time(files):
    lines = tail(files, count=50, wanted=LogFilter())
    assert events(lines) == ["first", "second", "third", "fourth", "Traceback: of the fourth"]
    assert [line.process for line in lines] == ["broker", "wallet", "wallet", "broker", "broker"]
    assert events(tail(files, count=2, wanted=LogFilter())) == events(lines)[-2:]
    assert tail(files, count=0, wanted=LogFilter()) == []


def test_tail_filters_by_level_and_request(files):
    assert events(tail(files, count=50, wanted=LogFilter("WARNING"))) == [
        "third", "fourth", "Traceback: of the fourth",
    ]  # fmt: skip
    assert events(tail(files, count=50, wanted=LogFilter(request_id="req_1"))) == [
        "second", "fourth",
    ]  # fmt: skip


def append(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text)


def test_follow_yields_new_lines_across_rotation(files):
    path = files[0].path
    steps = iter(
        [
            lambda: append(path, json_line(5, "fifth", level="info") + "\npart"),
            lambda: append(path, "ial\n"),
            lambda: (path.rename(path.with_suffix(".1")), path.write_text("rotated\n")),
            lambda: files[2].path.write_text("late file\n"),
        ]
    )

    def is_over() -> bool:
        step = next(steps, None)
        if step is not None:
            step()
        return step is None

    assert events(follow(files, wanted=LogFilter(), is_over=is_over)) == [
        "fifth",
        "partial",
        "rotated",
        "late file",
    ]
