"""One command in an instance, without a terminal: bounded in time and output, and stopped there when it is not wanted any more."""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Sequence

from cspace_mcp.capture import KEPT, Capture
from cspace_mcp.results import Execution
from netpolicy.clock import Clock, SystemClock
from netpolicy.errors import UserError
from sidecars.engine import Engine, ExecStream
from sidecars.instance import container_of, exec_stream
from sidecars.instance.exec import USER

#: Where the whole of a long output is put, in the instance.
FOLDER = "/tmp/cspace"
#: Marks a command and everything it has started, so that all of it can be found and stopped.
_MARK = "CSPACE_EXEC"
#: Between the question whether to stop and the next, in seconds.
_TICK = 0.1
#: What `timeout` has to end a command that does not listen, and we to hear of it, in seconds.
_KILL_AFTER, _GRACE = 5, 15
_TIMED_OUT = (124, 137)
_STOP = r"""
for file in $(grep -lsz -- "^$1\$" /proc/[0-9]*/environ); do
  number=${file#/proc/}; number=${number%/environ}
  [ "$number" = $$ ] || kill -9 "$number" 2>/dev/null
done
exit 0
"""


def execute(
    engine: Engine,
    project: str,
    name: str,
    command: Sequence[str],
    *,
    seconds: float,
    stop: threading.Event,
    clock: Clock | None = None,
) -> Execution:
    """See `cspace_mcp.service.Service.execute`."""
    clock = clock or SystemClock()
    mark = uuid.uuid4().hex
    # Ended from within, so that a command outlives neither its time nor a server that was killed.
    bounded = ("timeout", f"--kill-after={_KILL_AFTER}", f"{seconds:g}", *command)
    began = clock.monotonic()
    with (
        Capture() as capture,
        exec_stream(engine, project, name, bounded, stdin=False, environment={_MARK: mark}) as stream,
    ):
        ended = _listen(stream, capture, began + seconds + _KILL_AFTER + _GRACE, stop, clock)
        if not ended:
            _kill(engine, project, name, mark)
        status = stream.status() if ended else None
        took = clock.monotonic() - began
        timed_out = status is None or (status in _TIMED_OUT and took >= seconds)
        return Execution(
            exit_status=124 if status is None or timed_out else status,
            stdout=capture.stdout.text,
            stderr=capture.stderr.text,
            seconds=round(took, 3),
            timed_out=timed_out,
            truncated=capture.truncated,
            full_output=_put_aside(engine, project, name, capture, mark) if capture.truncated else None,
        )


def _listen(stream: ExecStream, capture: Capture, deadline: float, stop: threading.Event, clock: Clock) -> bool:
    """Take the output in until the command has ended; False when it was stopped or is past its deadline."""
    frames: queue.Queue[tuple[int, bytes] | None] = queue.Queue(64)

    def read() -> None:
        try:
            for frame in stream.frames():
                frames.put(frame)
        except (OSError, ValueError):
            # Closed under us, because nobody listens any more.
            return
        frames.put(None)

    # In a thread, because a frame that a deadline cuts in two cannot be taken up again.
    threading.Thread(target=read, daemon=True).start()
    while not stop.is_set() and clock.monotonic() < deadline:
        try:
            frame = frames.get(timeout=_TICK)
        except queue.Empty:
            if stream.status() is None:
                continue
            # It has ended, and something that it left behind holds its output open.
            return True
        if frame is None:
            return True
        capture.feed(*frame)
    return False


def _kill(engine: Engine, project: str, name: str, mark: str) -> None:
    container = container_of(engine, project, name)
    engine.containers.execs.run(container.id, ("sh", "-c", _STOP, "stop", f"{_MARK}={mark}"), user=USER, seconds=10)


def _put_aside(engine: Engine, project: str, name: str, capture: Capture, mark: str) -> str | None:
    """Keep the whole output in the instance, where the next command can read it; None where there is no room for it."""
    path = f"{FOLDER}/output-{mark[:8]}"
    container = container_of(engine, project, name)
    script = 'mkdir -p "${1%/*}" && cat > "$1"'
    text = capture.whole()
    if capture.kept == KEPT:
        text += b"\n[... the rest was not kept ...]\n"
    try:
        engine.containers.execs.run(container.id, ("sh", "-c", script, "keep", path), stdin=text, user=USER)
    except UserError:
        return None
    return path
