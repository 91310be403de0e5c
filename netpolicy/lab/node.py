"""A namespace of the lab in which things can be run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from netpolicy import command, probe
from netpolicy.kernel import netns
from netpolicy.probe import ProbeResult

P = ParamSpec("P")
R = TypeVar("R")

#: Runs the rest of its arguments with $0 as /etc/resolv.conf, in a mount namespace of its own; but not for another parent than $1,
#: for one that was killed before the parent-death signal was asked for would have left us to somebody else.
_WITH_RESOLVER = '[ "$PPID" = "$1" ] && shift && mount --bind "$0" /etc/resolv.conf && exec "$@"'


class Node:
    """One namespace. Its processes die with the process that made the lab, and are killed when the lab closes."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        """As `ip netns` knows it."""
        self.path = netns.path_of(name)
        self.resolv_conf = directory / f"{name}.resolv.conf"
        self.resolv_conf.write_text("")
        self._processes: list[subprocess.Popen[bytes]] = []

    def use_resolvers(self, *addresses: str) -> None:
        """What ``/etc/resolv.conf`` names for programs run here."""
        self.resolv_conf.write_text("".join(f"nameserver {a}\n" for a in addresses) + "options timeout:2 attempts:2\n")

    def argv(self, words: Sequence[str], *, user: int | None = None) -> list[str]:
        """The command line that runs `words` here, with the node's resolvers, as root or as a numeric user (and group)."""
        inner = list(words)
        death = ["setpriv", "--pdeathsig", "KILL"]
        if user is not None:
            # A change of user clears the parent-death signal, so it is asked for again.
            inner = [*death, f"--reuid={user}", f"--regid={user}", "--clear-groups", *inner]
        private = ["unshare", "--mount", "--propagation", "private"]
        shell = ["sh", "-c", _WITH_RESOLVER, str(self.resolv_conf), str(os.getpid())]
        return [*death, "nsenter", f"--net={self.path}", *private, *shell, *inner]

    def run(
        self,
        words: Sequence[str],
        *,
        stdin: bytes = b"",
        seconds: float | None = 60,
        user: int | None = None,
        env: Mapping[str, str] | None = None,
        ok: Sequence[int] = (0,),
    ) -> command.Completed:
        """Run a program here to its end; see `netpolicy.command.run`."""
        return command.run(self.argv(words, user=user), stdin=stdin, seconds=seconds, env=env, ok=ok)

    def popen(self, words: Sequence[str], *, user: int | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program here, as a process group of its own. Call it from a thread that lives as long as the program."""
        process = subprocess.Popen(self.argv(words, user=user), start_new_session=True, **options)
        self._processes.append(process)
        return process

    def probe(self, *targets: str, seconds: float = 5.0) -> list[ProbeResult]:
        """Try connections from here, all at once (`netpolicy.probe`)."""
        words = [*probe.command(), "--seconds", str(seconds), *targets]
        return probe.results(self.run(words, seconds=seconds + 20, ok=(0, 1)).text)

    def reach(self, target: str, *, seconds: float = 5.0) -> ProbeResult:
        """Try one connection from here."""
        return self.probe(target, seconds=seconds)[0]

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function in a throw-away thread inside the namespace."""
        return netns.call(self.name, function, *args, **kwargs)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this namespace."""
        return netns.socket_in(self.name, family, kind, protocol)

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a program that `popen` started, with its process group, and close our ends of its pipes."""
        if process in self._processes:
            self._processes.remove(process)
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    def close(self) -> None:
        """Kill what still runs here."""
        for process in list(self._processes):
            self.stop(process)
