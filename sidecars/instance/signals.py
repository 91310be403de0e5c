"""Hold back the signals that end a program (Ctrl-C, SIGTERM, SIGHUP) for a moment in which an end would leave a mess.

A request to the engine that is abandoned is carried out all the same, a little later: after whoever undoes has looked. So requests
that make something are not interrupted; they are short. The second signal gets through, for an engine that does not answer.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_Handler = Callable[[int, FrameType | None], object]


@contextmanager
def held(*, deliver: bool = True) -> Iterator[None]:
    """Hold the first signal until the block ends.

    Args:
        deliver: Whether it then has its effect; not where the block is itself the answer to one.

    Only the main thread receives signals; in others, and for signals that nothing here handles, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    handlers: dict[int, _Handler] = {}

    def hold(number: int, frame: FrameType | None) -> None:
        if waiting:
            handlers[number](number, frame)
        waiting.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        handler = signal.getsignal(number)
        if callable(handler):
            handlers[number] = handler
            signal.signal(number, hold)
    try:
        yield
    finally:
        for known, handler in handlers.items():
            signal.signal(known, handler)
        if waiting and deliver:
            handlers[waiting[0]](waiting[0], None)
