from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from netpolicy.errors import Exit, UserError
from sidecars.journal import Entry, Journal, Key, state_folder

KEY = Key("unix:///run/docker.sock", "shop", "mercury")


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        self.at += 1
        return self.at

    def now(self) -> float:
        return self.at


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state", Clock())


def test_the_last_phase_of_each_instance_is_told_with_its_reasons(journal: Journal) -> None:
    venus = Key(KEY.engine, "shop", "venus")
    other = Key(KEY.engine, "blog", "mercury")
    elsewhere = Key("ssh://far", "shop", "mercury")
    journal.record(KEY, "creating")
    journal.record(venus, "creating")
    journal.record(other, "ready")
    journal.record(elsewhere, "failed", ["disk full"])
    journal.record(KEY, "degraded", ["offline", "no ä"])
    assert journal.entries(KEY.engine, "shop") == {
        KEY: Entry(KEY, "degraded", ("offline", "no ä"), 1000.0),
        venus: Entry(venus, "creating", (), 1000.0),
    }
    assert set(journal.entries(KEY.engine)) == {KEY, venus, other}
    assert [entry.phase for entry in journal.history(KEY)] == ["creating", "degraded"]
    journal.forget(KEY)
    assert set(journal.entries(KEY.engine, "shop")) == {venus}
    assert set(journal.entries("ssh://far")) == {elsewhere}


def test_it_survives_the_process_that_wrote_it(journal: Journal) -> None:
    journal.record(KEY, "ready")
    assert Journal(journal.folder).entries(KEY.engine)[KEY].phase == "ready"


def test_many_processes_begin_and_write_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from sidecars.journal import Journal, Key\n"
        "sys.stdin.readline()\n"
        "for n in range(10): Journal(Path(sys.argv[1])).record(Key('e', 'p', sys.argv[2]), str(n))\n"
    )
    argv = [sys.executable, "-c", program, str(tmp_path / "state")]
    runs = [subprocess.Popen([*argv, str(n)], stdin=subprocess.PIPE, stderr=subprocess.PIPE) for n in range(6)]
    for run in runs:
        assert run.stdin is not None
        run.stdin.write(b"\n")
        run.stdin.flush()
    assert [run.communicate()[1] for run in runs] == [b""] * 6
    assert {entry.phase for entry in Journal(tmp_path / "state").entries("e").values()} == {"9"}


def test_the_lock_admits_one_and_names_who_holds_it(journal: Journal) -> None:
    assert journal.holder(KEY) is None
    with journal.lock(KEY):
        assert journal.holder(KEY) == f"process {os.getpid()}"
        with journal.lock(Key(KEY.engine, "shop", "venus")):
            pass
        with pytest.raises(UserError) as caught, Journal(journal.folder).lock(KEY):
            pass
    assert (caught.value.code, caught.value.exit_status) == ("instance-busy", Exit.CONFLICT)
    assert str(os.getpid()) in caught.value.message
    assert journal.holder(KEY) is None
    with journal.lock(KEY):
        pass
    assert list((journal.folder / "locks").iterdir()) == []


def test_waiting_for_the_lock_tells_for_whom_and_ends_when_it_is_free(journal: Journal) -> None:
    told = threading.Event()
    free = threading.Event()
    got: list[bool] = []

    def wait() -> None:
        with Journal(journal.folder).lock(KEY, seconds=60, waiting=lambda _holder: told.set()):
            got.append(free.is_set())

    thread = threading.Thread(target=wait)
    with journal.lock(KEY):
        thread.start()
        assert told.wait(10)
        free.set()
    thread.join(10)
    assert got == [True]


def test_waiting_can_be_given_up(journal: Journal) -> None:
    def give_up(_holder: str) -> None:
        raise KeyboardInterrupt

    with journal.lock(KEY), pytest.raises(KeyboardInterrupt), journal.lock(KEY, seconds=60, waiting=give_up):
        pass


def test_only_one_of_many_is_inside_at_any_time(journal: Journal) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(5):
            with Journal(journal.folder).lock(KEY, seconds=60):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(most) == 30
    assert set(most) == {1}


def test_a_killed_process_holds_nothing(journal: Journal) -> None:
    program = (
        "import sys; from pathlib import Path; from sidecars.journal import Journal, Key\n"
        f"with Journal(Path(sys.argv[1])).lock(Key({KEY.engine!r}, {KEY.project!r}, {KEY.instance!r})):\n"
        "  print('held', flush=True); sys.stdin.readline()\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program, str(journal.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert run.stdout is not None
    assert run.stdout.readline() == b"held\n"
    assert journal.holder(KEY) == f"process {run.pid}"
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert journal.holder(KEY) is None
    with journal.lock(KEY):
        pass


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "state")
    with pytest.raises(UserError) as recording:
        journal.record(KEY, "ready")
    with pytest.raises(UserError) as locking, journal.lock(KEY):
        pass
    for caught in (recording, locking):
        assert caught.value.code == "state-unusable"
        assert "XDG_STATE_HOME" in str(caught.value.hint)


def test_the_folder_follows_the_xdg_rules() -> None:
    assert state_folder({"XDG_STATE_HOME": "/x", "HOME": "/h"}) == Path("/x/cspace")
    assert state_folder({"XDG_STATE_HOME": "rel", "HOME": "/h"}) == Path("/h/.local/state/cspace")
    assert state_folder({"HOME": "/h"}) == Path("/h/.local/state/cspace")
