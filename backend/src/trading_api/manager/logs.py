"""The fleet's logs as one: merged by time, each line under the name of its process.

Files belong to the supervisor and to nginx; what lives here only reads them.
"""

from __future__ import annotations

import heapq
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

# A tail of this size is read per file; older lines are in the file for whoever needs them.
_TAIL_BYTES = 4 * 1024 * 1024
_POLL_SECONDS = 0.2

_ISO_TIME = re.compile(r"^(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?)(Z|[+-]\d\d:?\d\d)?")
_NGINX_TIME = re.compile(r"^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(\w+)\]")
_BUS_TIME = re.compile(r"^\d+:\w (\d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d\.\d{3}) ([.*#-])")
_LEVEL_WORD = re.compile(r"\[(debug|info|notice|warning|error|critical)\s*\]")


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file and the process whose lines it holds."""

    process: str
    path: Path


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line: `at` is a Unix time in seconds, that of the line before where it names none."""

    at: float
    process: str
    level: str
    text: str


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which lines are wanted: at least of a level, of one request."""

    level: str = "DEBUG"
    request_id: str | None = None

    def admits(self, line: LogLine) -> bool:
        """Say whether a line is wanted."""
        if LEVELS.index(line.level) < LEVELS.index(self.level):
            return False
        return self.request_id is None or self.request_id in line.text


def tail(files: Sequence[LogFile], *, count: int, wanted: LogFilter) -> list[LogLine]:
    """Return the last `count` wanted lines of all files together, oldest first."""
    merged = heapq.merge(*(_read_tail(file, wanted) for file in files), key=lambda line: line.at)
    lines = list(merged)
    return lines[-count:] if count else []


def follow(
    files: Sequence[LogFile],
    *,
    wanted: LogFilter,
    is_over: Callable[[], bool] = lambda: False,
) -> Iterator[LogLine]:
    """Yield wanted lines as they are written; goes on when a file is rotated or appears late."""
    readers = [_Follower(file) for file in files]
    while not is_over():
        fresh = [line for reader in readers for line in reader.read() if wanted.admits(line)]
        yield from sorted(fresh, key=lambda line: line.at)
        if not fresh:
            time.sleep(_POLL_SECONDS)


def parse_line(text: str, *, process: str, previous: LogLine | None) -> LogLine:
    """Read time and level of a line: JSON, a readable log line, nginx's or the bus's own.

    A line that names neither belongs to the one before it, as a traceback's lines do.
    """
    at, level = _time_and_level(text)
    if previous is not None:
        at = previous.at if at is None else at
        level = previous.level if level is None else level
    return LogLine(at or 0.0, process, level or "INFO", text)


class _Follower:
    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._previous: LogLine | None = None
        self._rest = b""
        try:
            status = file.path.stat()
            self._inode, self._offset = status.st_ino, status.st_size
        except OSError:
            self._inode, self._offset = 0, 0

    def read(self) -> list[LogLine]:
        try:
            with self._file.path.open("rb") as stream:
                status = self._file.path.stat()
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset, self._rest = status.st_ino, 0, b""
                stream.seek(self._offset)
                content = stream.read(_TAIL_BYTES)
        except OSError:
            return []
        self._offset += len(content)
        *whole, self._rest = (self._rest + content).split(b"\n")
        lines = []
        for raw in whole:
            line = parse_line(
                raw.decode(errors="replace"), process=self._file.process, previous=self._previous
            )
            self._previous = line
            lines.append(line)
        return lines


def _read_tail(file: LogFile, wanted: LogFilter) -> list[LogLine]:
    try:
        with file.path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - _TAIL_BYTES))
            content = stream.read()
    except OSError:
        return []
    if size > _TAIL_BYTES:
        content = content.partition(b"\n")[2]
    previous: LogLine | None = None
    lines = []
    for raw in content.splitlines():
        line = parse_line(raw.decode(errors="replace"), process=file.process, previous=previous)
        # Lines of one file keep their order, even where a clock was set back in between.
        if previous is not None and line.at < previous.at:
            line = LogLine(previous.at, line.process, line.level, line.text)
        previous = line
        if wanted.admits(line):
            lines.append(line)
    return lines


def _time_and_level(text: str) -> tuple[float | None, str | None]:
    if text.startswith("{"):
        return _of_json(text)
    if found := _NGINX_TIME.match(text):
        at = datetime.strptime(found[1], "%Y/%m/%d %H:%M:%S").astimezone()
        return at.timestamp(), _level_of(found[2])
    if found := _BUS_TIME.match(text):
        at = datetime.strptime(found[1], "%d %b %Y %H:%M:%S.%f").astimezone()
        return at.timestamp(), "WARNING" if found[2] == "#" else "INFO"
    if found := _ISO_TIME.match(text):
        word = _LEVEL_WORD.search(text, found.end(), found.end() + 24)
        return _instant(found[0]), _level_of(word[1]) if word else None
    return None, None


def _of_json(text: str) -> tuple[float | None, str | None]:
    try:
        fields = json.loads(text)
    except ValueError:
        return None, None
    if not isinstance(fields, dict):
        return None, None
    at = _instant(str(fields.get("timestamp", "")))
    if "level" in fields:
        return at, _level_of(str(fields["level"]))
    status = fields.get("status")
    if isinstance(status, int):
        return at, "ERROR" if status >= 500 else "WARNING" if status >= 400 else "INFO"
    return at, None


def _instant(text: str) -> float | None:
    try:
        at = datetime.fromisoformat(text.replace(",", "."))
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _level_of(word: str) -> str:
    match word.lower()[:4]:
        case "debu":
            return "DEBUG"
        case "warn":
            return "WARNING"
        case "erro" | "crit" | "aler" | "emer":
            return "ERROR"
        case _:
            return "INFO"
