"""The frame of both programs: verbs, usage, and how every ending becomes an exit status."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import sys
import types
from collections.abc import Callable

import pytest

from netpolicy.cli.program import Program, Verb
from netpolicy.errors import Exit, UserError


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int]], Program]:
    """A program with one verb that does what it is given."""

    def make(work: Callable[[], int]) -> Program:
        verb = types.ModuleType("a_verb", "What it does.")

        def configure(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("--json", action="store_true")

        verb.configure, verb.run = configure, lambda _args: work()  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "a_verb", verb)
        return Program("prog", "a program", "1.2", (Verb("work", "a_verb", "works"), Verb("wait", "a_verb", "waits")))

    return make


Make = Callable[[Callable[[], int]], Program]


def test_the_overview_names_every_verb(program: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert program(lambda: 0).main([]) == Exit.BAD_INPUT
    assert program(lambda: 0).main(["--help"]) == Exit.OK
    assert program(lambda: 0).main(["--version"]) == Exit.OK
    out = capsys.readouterr().out
    assert "  work  works\n  wait  waits" in out
    assert out.endswith("prog 1.2\n")


def test_a_verb_helps(program: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert program(lambda: 0).main(["work", "--help"]) == Exit.OK
    assert "What it does." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["wrk"], "error: prog: unknown verb 'wrk'\n  Did you mean 'prog work'?\n"),
        (["work", "--jsn"], "error: prog work: unrecognized arguments: --jsn\n  See 'prog work --help'.\n"),
        (["work", "--js"], "error: prog work: unrecognized arguments: --js\n  See 'prog work --help'.\n"),
    ],
)
def test_bad_usage_is_one_message(
    program: Make, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert program(lambda: 0).main(words) == Exit.BAD_INPUT
    assert capsys.readouterr() == ("", message)


def test_a_status_passes_through(program: Make) -> None:
    assert program(lambda: 42).main(["work"]) == 42


def test_an_error_is_told_once_as_text_or_as_json(program: Make, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise UserError("no-such", "there is none", hint="Make one.", exit_status=Exit.MISSING, details={"n": 1})

    assert program(fail).main(["work"]) == Exit.MISSING
    assert capsys.readouterr() == ("", "error: there is none\n  Make one.\n")
    assert program(fail).main(["work", "--json"]) == Exit.MISSING
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == (
        {"error": {"code": "no-such", "message": "there is none", "hint": "Make one.", "details": {"n": 1}}},
        "",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_verb_and_its_clean_up_runs(
    program: Make, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    undone = []

    def work() -> int:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        except KeyboardInterrupt:
            undone.append(number)
            raise
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert program(work).main(["work"]) == 128 + number
    assert undone == [number]
    assert capsys.readouterr().err == "error: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_while_python_cleans_up_is_not_lost(
    program: Make, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """What is raised in a finalizer goes nowhere."""

    class Interrupted:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)

    def work() -> int:
        Interrupted()
        signal.pause()
        return 0

    assert program(work).main(["work"]) == 128 + number
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_full_disk_is_the_machines_trouble(program: Make, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "/var/x")

    assert program(work).main(["work"]) == Exit.FAILED
    assert capsys.readouterr().err == "error: /var/x: No space left on device\n"


def test_a_defect_is_told_as_one_and_is_no_verdict(program: Make, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise ZeroDivisionError("oh")

    assert program(work).main(["work"]) == Exit.DEFECT
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith(
        "error: ZeroDivisionError: oh\n  This is a defect of prog, not of yours. Please report it with the lines above.\n"
    )


def test_a_reader_that_leaves_is_no_error() -> None:
    import subprocess

    code = "from netpolicy.cli.program import Program, Verb; import sys; p = Program('p', 's', '1', (Verb('v', 'm', 'x' * 99999),)); sys.exit(p.main(['--help']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""
