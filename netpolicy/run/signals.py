"""Signals of the outer process, taken by a thread that can tell where they come from."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

#: Takes a signal's number, and whether the terminal has sent it (then the command has it already).
Taker = Callable[[int, bool], None]

_PASSED = (
    *(signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGALRM, signal.SIGWINCH),
)
#: What ends the thread.
_DONE = signal.SIGRTMAX
#: siginfo_t.si_code of what the kernel sends by itself, e.g. to a terminal's foreground processes (sigaction(2)).
_SI_KERNEL = 0x80


@contextlib.contextmanager
def given_to(take: Taker) -> Iterator[None]:
    """While entered, signals that come to this process are given to `take`, in a thread of its own, instead of acting.

    Enter it in the main thread before other threads are started, so that none of them takes a signal.
    """
    watched = {*_PASSED, _DONE}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)

    def wait() -> None:
        while (info := signal.sigwaitinfo(watched)).si_signo != _DONE:
            take(info.si_signo, info.si_code == _SI_KERNEL)

    thread = threading.Thread(target=wait, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        assert thread.ident is not None
        signal.pthread_kill(thread.ident, _DONE)
        thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
