import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trading_api.manager import binaries, processes
from trading_api.manager.engine import EngineError, SupervisordEngine
from trading_api.manager.render import render_template
from trading_api.manager.render.supervisor import Program


def a_program(name: str, folder: Path, code: str = "import sys, time; time.sleep(600)") -> Program:
    setpriv = binaries.find_setpriv()
    tied = f"{setpriv} --pdeathsig TERM -- " if setpriv else ""
    script = folder / f"{name}.py"
    script.write_text(code)
    return Program(
        name=name,
        command=f"{tied}{sys.executable} {script}",
        directory=str(folder),
        environment="",
        priority=1,
        start_seconds=0,
        stop_signal="TERM",
        stop_wait_seconds=5,
        stop_as_group=True,
        log_file=str(folder / f"{name}.log"),
    )


def write_config(folder: Path, *programs: Program) -> Path:
    path = folder / "supervisord.conf"
    path.write_text(
        render_template(
            "supervisord.conf.j2",
            source="a test",
            socket=folder / "s.sock",
            run=folder,
            log=folder,
            user="root" if os.geteuid() == 0 else None,
            programs=programs,
        )
    )
    return path


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def engine(short_folder, monkeypatch):
    # What modules would import plays no part here.
    monkeypatch.setenv("TRADING_PRELOAD", "0")
    programs = [a_program(name, short_folder) for name in ("one", "two")]
    config = write_config(short_folder, *programs)
    found = SupervisordEngine(
        python=sys.executable,
        config=config,
        socket_path=short_folder / "s.sock",
        record=short_folder / "supervisord.json",
        log_folder=short_folder,
    )
    yield found
    found.stop()


def is_tied(pid: int) -> bool:
    """Say whether the fork has become setpriv and that the program, its work done."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return words[0] == sys.executable.encode() and words[1].endswith((b"one.py", b"two.py"))


def pids(engine: SupervisordEngine) -> dict[str, int | None]:
    return {state.name: state.pid for state in engine.status()}


def test_killed_program_is_started_again_and_counted(engine):
    assert not engine.is_up()
    assert engine.status() == []
    engine.start()
    before = pids(engine)
    assert before["one"] is not None
    os.kill(before["one"], signal.SIGKILL)
    wait_for(lambda: pids(engine)["one"] not in {None, before["one"]})
    assert pids(engine)["two"] == before["two"]
    assert {state.name: state.restarts for state in engine.status()} == {"one": 1, "two": 0}


def test_restart_and_start_touch_the_named_programs_alone(engine):
    engine.start()
    before = pids(engine)
    engine.restart_programs(["two"])
    wait_for(lambda: pids(engine)["two"] is not None)
    assert pids(engine)["one"] == before["one"]
    assert pids(engine)["two"] != before["two"]
    engine.start_programs(["one", "two"])
    assert pids(engine)["one"] == before["one"]


def test_program_is_added_and_removed_while_the_others_run(engine, short_folder):
    engine.start()
    before = pids(engine)
    names = ("one", "two", "three")
    write_config(short_folder, *(a_program(name, short_folder) for name in names))
    engine.add_program("three")
    wait_for(lambda: pids(engine).get("three") is not None)
    engine.remove_program("one")
    after = pids(engine)
    assert set(after) == {"two", "three"}
    assert after["two"] == before["two"]
    assert before["one"] is not None
    assert processes.find_start(before["one"]) is None


def test_stop_ends_everything_and_can_be_repeated(engine):
    engine.start()
    records = [processes.record_of(pid) for pid in pids(engine).values() if pid]
    engine.stop()
    assert processes.wait_gone([each for each in records if each], timeout_seconds=5) == []
    assert not engine.is_up()
    engine.stop()


@pytest.mark.skipif(binaries.find_setpriv() is None, reason="the kernel's death signal is needed")
def test_killed_supervisor_takes_its_programs_along(engine):
    engine.start()
    records = [processes.record_of(pid) for pid in pids(engine).values() if pid]
    record = engine.record
    assert record is not None
    wait_for(lambda: all(is_tied(each.pid) for each in records if each))
    os.kill(record.pid, signal.SIGKILL)
    assert processes.wait_gone([each for each in records if each], timeout_seconds=5) == []
    assert not engine.is_up()
    engine.start()
    assert len(pids(engine)) == 2


def test_broken_configuration_is_reported_with_supervisords_words(engine, short_folder):
    (short_folder / "supervisord.conf").write_text("[supervisord]\n[program:x]\n")
    with pytest.raises(EngineError, match="program:x"):
        engine.start()


def test_unknown_program_is_an_error(engine):
    engine.start()
    with pytest.raises(EngineError, match="BAD_NAME"):
        engine.start_programs(["nine"])
