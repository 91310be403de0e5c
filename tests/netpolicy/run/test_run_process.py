"""The command's input, output, terminal, signals and exit status are its own; with the outer process everything ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import secrets
import select
import shlex
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import ROOT, USER, Form, Runner, processes_with, running

from netpolicy.clock import SystemClock
from netpolicy.lab import Lab

pytestmark = pytest.mark.kernel

BOTH = pytest.mark.parametrize("form", [ROOT, USER], ids=str)
DEADLINE = 20.0
#: A shell that changes the terminal's mode loses what is typed meanwhile; whoever types waits for its prompt.
PROMPTED, PROMPT = "PS1='ne''xt> '", b"next> "


def runner_of(lab: Lab, form: Form) -> Runner:
    return Runner(lab, form)


@BOTH
def test_input_output_environment_and_directory_pass_through(lab: Lab, form: Form) -> None:
    script = 'read line; echo "out:$line:$WORD:$(pwd)"; echo err >&2; exit 3'
    done = runner_of(lab, form).run("sh", "-c", script, stdin=b"in\n", env={"WORD": "w"})
    assert done.text == f"out:in:w:{Path.cwd()}"
    assert done.stderr == b"err\n"
    assert done.status == 3


@BOTH
@pytest.mark.parametrize(
    ("command", "status"), [("true", 0), ("exit 200", 200), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_the_exit_status_is_the_commands(lab: Lab, form: Form, command: str, status: int) -> None:
    assert runner_of(lab, form).run("sh", "-c", command).status == status


@BOTH
def test_a_command_that_is_not_there_or_not_executable(lab: Lab, form: Form) -> None:
    runner = runner_of(lab, form)
    missing, wrong = runner.run("no-such-program"), runner.run("/etc/passwd")
    assert (missing.status, missing.stderr) == (127, b"error: there is no program 'no-such-program'\n")
    assert (wrong.status, wrong.stderr) == (126, b"error: /etc/passwd is not an executable program\n")


@BOTH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_command(lab: Lab, form: Form, number: signal.Signals) -> None:
    script = f"trap 'echo caught; exit 9' {number.name.removeprefix('SIG')}; echo ready; while :; do sleep 0.05; done"
    process = runner_of(lab, form).popen("sh", "-c", script, stdout=subprocess.PIPE)
    with running(process):
        os.kill(process.pid, number)
        assert process.stdout is not None
        assert process.stdout.readline() == b"caught\n"
        assert process.wait(DEADLINE) == 9


def test_a_signal_before_the_command_runs_ends_all_of_it(lab: Lab) -> None:
    """The names take their time (nobody answers), and nothing has been started yet."""
    lab.dns.silent = True
    process = Runner(lab, ROOT, {"domains": ["slow.example"]}).popen(
        "sh", "-c", "echo started", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    clock = SystemClock()
    deadline = clock.monotonic() + DEADLINE
    while not lab.dns.queries("slow.example"):
        assert clock.monotonic() < deadline
        select.select([], [], [], 0.02)
    process.terminate()
    output, errors = process.communicate(timeout=DEADLINE)
    assert (process.returncode, output) == (143, b"")
    assert errors == b"error: interrupted before the command was started\n"
    assert_host_is_clean(lab)


@BOTH
def test_a_kill_of_the_outer_process_leaves_nothing_and_nothing_open(lab: Lab, form: Form) -> None:
    word = secrets.token_hex(8)
    runner = Runner(lab, form, {"enabled": False})
    script = f"(while :; do echo {word} >/dev/udp/192.0.2.9/9; sleep 0.02; done) & setsid sleep 4711 & echo up; wait"
    process = runner.popen("bash", "-c", script, stdout=subprocess.PIPE)
    with running(process):
        wait_until(lambda: bool(lab.receiver.saw(word)))
        below = descendants(process.pid)
        assert len(below) >= 5, "the keeper, the first process, the command, what it started, and pasta or the watcher"
        process.kill()
        process.wait(DEADLINE)
    wait_until(lambda: not any(is_alive(pid) for pid in below))
    wait_until(lambda: not processes_with(word))
    wait_until(lambda: not host_traces(lab))
    # Whatever it had on the way has arrived by now, so what comes from here on would be sent from here on.
    lab.receiver.forget()
    select.select([], [], [], 0.2)
    assert not lab.receiver.saw(word), "it still sends"


def test_a_command_in_the_middle_cannot_be_reached_from_the_inside(lab: Lab) -> None:
    """Only its own processes are there, and the first of them cannot be looked into."""
    script = "ls -d /proc/[0-9]* | wc -l; ls /proc/1/fd 2>&1 | tail -1; readlink /proc/1/ns/net || echo hidden"
    count, fds, namespace = Runner(lab, USER).run("sh", "-c", script).text.splitlines()
    assert int(count) <= 5
    assert "Permission denied" in fds
    assert namespace == "hidden"


@contextlib.contextmanager
def terminal(argv: list[str], lab: Lab) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The program with a terminal of 33 by 77 as its controlling one."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))

    def take() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(lab.host.argv(argv), stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=take)  # noqa: PLW1509
    os.close(theirs)
    try:
        yield ours, process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, wanted: bytes) -> bytes:
    clock = SystemClock()
    seen, deadline = b"", clock.monotonic() + DEADLINE
    while wanted not in seen:
        assert select.select([terminal], [], [], max(0, deadline - clock.monotonic()))[0], seen
        try:
            seen += os.read(terminal, 4096)
        except OSError:
            raise AssertionError(seen) from None
    return seen


@BOTH
def test_a_terminal_works(lab: Lab, form: Form) -> None:
    script = (
        "stty size; n=0; trap 'n=$((n+1)); echo cau''ght' INT; trap 'echo now:$(stty size)' WINCH;"
        " echo read''y; read x; echo \"got:$x\";"
        ' until read -t 0.1 x; do :; done; echo "total:$n"; exit 5'
    )
    with terminal(runner_of(lab, form).argv(["bash", "-c", script]), lab) as (tty, process):
        assert b"33 77" in read_until(tty, b"ready")
        os.write(tty, b"word\n")
        read_until(tty, b"got:word")
        fcntl.ioctl(tty, termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 0, 0))
        read_until(tty, b"now:40 100")
        os.write(tty, b"\x03")
        read_until(tty, b"caught")
        os.write(tty, b"end\n")
        read_until(tty, b"total:1\r")
        assert process.wait(DEADLINE) == 5


@BOTH
def test_an_interactive_shell_has_job_control(lab: Lab, form: Form) -> None:
    with terminal(runner_of(lab, form).argv(["bash", "--norc", "-i"]), lab) as (tty, process):
        nap = f"sleep 1{secrets.randbelow(10**6):06}"
        os.write(tty, f"{PROMPTED}; {nap}\n".encode())
        wait_until(lambda: any(p.startswith("sleep") for p in processes_with(nap)))
        os.write(tty, b"\x1a")
        assert b"Stopped" in read_until(tty, PROMPT)
        os.write(tty, b"kill -9 %1\nexit 4\nexit 4\n")  # a shell with a stopped job wants to be told twice
        assert drain(tty, process) == 4


def drain(tty: int, process: subprocess.Popen[bytes]) -> int:
    """Read what is left, so that nobody waits for us; the exit status."""
    with contextlib.suppress(OSError, AssertionError):
        read_until(tty, b"never")
    return process.wait(DEADLINE)


@BOTH
def test_stopped_and_continued_as_a_whole(lab: Lab, form: Form) -> None:
    """Ctrl-Z under a shell: the shell sees its job stop; on "fg" it goes on where it was."""
    words = runner_of(lab, form).argv(["sh", "-c", "echo u''p; read x; echo \"got:$x\"; exit 6"])
    with terminal(["bash", "--norc", "-i"], lab) as (tty, process):
        os.write(tty, f"set +H; {PROMPTED}\n".encode())
        read_until(tty, PROMPT)
        os.write(tty, shlex.join(words).encode() + b"; echo status:$?\n")
        read_until(tty, b"\rup\r\n")
        os.write(tty, b"\x1a")
        assert b"Stopped" in read_until(tty, PROMPT)
        os.write(tty, b"fg\n")
        os.write(tty, b"again\n")
        read_until(tty, b"got:again")
        os.write(tty, b"exit\n")
        drain(tty, process)


def wait_until(condition: Callable[[], bool]) -> None:
    clock = SystemClock()
    deadline = clock.monotonic() + DEADLINE
    while not condition():
        assert clock.monotonic() < deadline, "it did not happen in time"
        select.select([], [], [], 0.02)


def descendants(pid: int) -> list[int]:
    """All processes below one; and the watcher, which has left the family but still has the command line."""
    found = [int(p) for t in Path(f"/proc/{pid}/task").glob("*/children") for p in t.read_text().split()]
    return found + [below for child in found for below in descendants(child)]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def host_traces(lab: Lab) -> list[str]:
    """What a run has left on the lab's host."""
    script = "nft list tables | grep npr; ls /proc/sys/net/ipv4/conf | grep npr; ls -d /run/netpolicy/run-$(stat -Lc %i /proc/self/ns/net) 2>/dev/null; true"
    return lab.host.run(["sh", "-c", script]).text.split()


def assert_host_is_clean(lab: Lab) -> None:
    assert not host_traces(lab)
