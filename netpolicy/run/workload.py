"""The command and the two processes above it.

    netpolicy run  ->  keeper  ->  first process of a new process namespace  ->  CMD

All are forked before the first thread is started. The keeper enters the namespaces and waits; the first process mounts, starts
the command, passes signals on to it and reaps orphans. Whichever of them ends, the kernel ends all below it: they carry parent-
death signals, and a process namespace does not outlive its first process. They stay in the terminal's process group, so what
the terminal sends (Ctrl-C, Ctrl-Z, a new window size) reaches the command as if nothing stood in between.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from netpolicy.errors import Exit, UserError
from netpolicy.kernel import netns
from netpolicy.run import confine, mounts, syscalls

#: What a shell returns for a command that is not there, and for one that cannot be executed.
NOT_FOUND, NOT_EXECUTABLE = 127, 126
_MESSAGE = 65536
Mask = set[int | signal.Signals]


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and as whom."""

    argv: tuple[str, ...]
    who: confine.Identity
    nested: bool
    """Whether it is put into a user namespace of its own (the form for ordinary users)."""


class Workload:
    """The command from outside. Made by `fork`, which must come before any thread."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        """The keeper's."""
        self._channel = channel

    @classmethod
    def fork(cls, command: Command) -> Workload:
        """Start the processes; they wait for `start`."""
        if not command.argv:
            raise ValueError("no command")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        # Blocked before the fork: a Ctrl-C just now is the command's business, not that of a half-made keeper.
        mask: Mask = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_ALONE)
        try:
            pid = os.fork()
            if pid == 0:
                ours.close()
                _child(lambda: _keep(command, theirs, mask, parent))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        return cls(pid, ours)

    def start(self, namespace: int, resolver: str) -> None:
        """Let the command begin in a network namespace, with this text as its resolv.conf. Signals may be sent from now on."""
        text = json.dumps({"resolver": resolver}).encode()
        socket.send_fds(self._channel, [text], [namespace])

    def confirm(self) -> None:
        """Wait until the command runs.

        Raises:
            UserError: ``command-not-found``, ``command-not-executable``, or ``not-confined``: something could not be taken
                away from it, so it was not started.
        """
        answer = self._channel.recv(_MESSAGE)
        if not answer:
            raise UserError("not-confined", "the command's keeper ended before the command was started")
        report: dict[str, Any] = json.loads(answer)
        if report.get("error"):
            raise UserError(**report["error"])

    def signal(self, number: int) -> None:
        """Pass a signal on to the command; no error where it has ended."""
        with contextlib.suppress(OSError):
            self._channel.send(json.dumps({"signal": number}).encode())

    def reap(self) -> int:
        """Wait for the end. The command's exit status, or 128 and the number of the signal that ended it."""
        _, status = os.waitpid(self.pid, 0)
        return _exit_status(status)

    def kill(self) -> None:
        """End the command and all it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the channel: whatever still runs ends."""
        self._channel.close()


def _child(body: Callable[[], int]) -> NoReturn:
    """Run the body of a forked process; nothing of the parent's stack is unwound in it."""
    status = Exit.DEFECT
    try:
        status = body()
    finally:
        if sys.exc_info()[0] is not None:
            import traceback

            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)


def _reset_signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # Ignored by whoever started us stays ignored (nohup); Python's own handlers and choices do not.
        if signal.getsignal(number) is not signal.SIG_IGN or number in (signal.SIGPIPE, signal.SIGXFSZ):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)


#: Signals that the processes in between leave to the command; the terminal's stop and continue signals act on them too.
_LEFT_ALONE = frozenset(signal.valid_signals()) - {
    *(signal.SIGCHLD, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT),
}


def _keep(command: Command, channel: socket.socket, mask: Mask, parent: int) -> int:
    syscalls.die_with_parent(parent)
    _reset_signals()
    data, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE, 1)
    if not data:
        return Exit.FAILED
    resolver: str = json.loads(data)["resolver"]
    try:
        netns.enter(descriptors[0])
        os.close(descriptors[0])
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID)
        mounts.isolate()
        first = os.fork()
    except (OSError, UserError) as error:
        return _tell(channel, "enter its namespaces", error)
    if first == 0:
        _child(lambda: _first(command, channel, resolver, mask))
    channel.close()
    syscalls.set_dumpable(False)
    _, status = os.waitpid(first, 0)
    return _exit_status(status)


def _first(command: Command, channel: socket.socket, resolver: str, mask: Mask) -> int:
    syscalls.die_with_parent(0)
    try:
        mounts.use_resolver(resolver)
        mounts.own_processes(protect_kernel=not command.nested)
        started = _start(command, mask)
    except (OSError, UserError) as error:
        return _tell(channel, "prepare its file system", error)
    channel.send(b"{}")
    syscalls.set_dumpable(False)
    syscalls.limit_capabilities(frozenset({5}))  # CAP_KILL, for a command that runs as somebody else
    return _watch(started, channel)


def _start(command: Command, mask: Mask) -> int:
    """Fork and execute the command. Raises UserError where that fails."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(lambda: _execute(command, mask, writing))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        failure = pipe.read()
    if failure:
        os.waitpid(pid, 0)
        raise UserError(**json.loads(failure))
    return pid


def _execute(command: Command, mask: Mask, pipe: int) -> int:
    """Become the command; come back only with a failure written to the pipe."""
    step = "be confined"
    try:
        if command.nested:
            syscalls.set_dumpable(True)  # or the maps of the new user namespace would not be ours to write
            confine.enter_own_user_namespace(command.who)
        confine.give_up_privileges(command.who, nested=command.nested)
        environment = {**os.environ, **dict(command.who.environment)}
        program = shutil.which(command.argv[0], path=environment.get("PATH"))
        step = "be executed"
        if program is None:
            raise FileNotFoundError(2, "no such program")
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execve(program, command.argv, environment)
    except OSError as error:
        os.write(pipe, json.dumps(_refusal(command, step, error)).encode())
    return Exit.FAILED


def _refusal(command: Command, step: str, error: OSError) -> dict[str, Any]:
    name = command.argv[0]
    if step == "be executed" and isinstance(error, FileNotFoundError):
        if "/" in name and os.path.lexists(name):
            return _error("command-not-executable", f"{name} is not an executable program", NOT_EXECUTABLE)
        return _error("command-not-found", f"there is no program {name!r}", NOT_FOUND)
    if step == "be executed":
        return _error("command-not-executable", f"{name} cannot be executed: {error.strerror}", NOT_EXECUTABLE)
    return _error("not-confined", f"{name} could not {step}, so it was not started: {error}", Exit.FAILED)


def _error(code: str, message: str, status: int) -> dict[str, Any]:
    return {"code": code, "message": message, "exit_status": status}


def _tell(channel: socket.socket, step: str, error: OSError | UserError) -> int:
    """Send a failure to whoever called `start`; the exit status of this process."""
    if isinstance(error, UserError):
        body = {**error.as_dict(), "exit_status": error.exit_status}
    else:
        message = f"the command could not {step}, so it was not started: {error}"
        body = _error("not-confined", message, Exit.FAILED)
    channel.send(json.dumps({"error": body}).encode())
    return Exit.FAILED


def _watch(command: int, channel: socket.socket) -> int:
    """Pass signals on and reap orphans until the command ends (or the channel does, which ends everything)."""
    wake, woken = os.pipe()
    for end in (wake, woken):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        status = _reap_all(command)
        if status is not None:
            return status
        for descriptor, _ in poll.poll():
            if descriptor == wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
                continue
            data = channel.recv(_MESSAGE)
            if not data:
                return 128 + signal.SIGKILL
            with contextlib.suppress(ProcessLookupError):
                os.kill(command, json.loads(data)["signal"])


def _reap_all(command: int) -> int | None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return Exit.FAILED
        if pid == 0:
            return None
        if pid == command:
            return _exit_status(status)


def _exit_status(wait_status: int) -> int:
    """As a shell says it: 128 and the number where a signal ended the process."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code
