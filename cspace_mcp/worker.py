"""One long call in a process of its own: a request on standard input, steps and one answer on standard output.

    -> {"op": "spawn", "args": {...}}
    <- {"step": {"phase", "message", "fraction", "seconds"}}   any number
    <- {"result": {...}} or {"error": {"code", "message", "hint", "details"}}

End-of-file on standard input before the answer means that nobody waits for it any more: the work is undone, as after Ctrl-C.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from cspace_mcp.service import Service, Spawn
from netpolicy.errors import Exit, UserError
from sidecars.progress import Step

#: Between an interruption and the next, where the first was not heard.
_AGAIN_SECONDS = 0.1


def run(service: Callable[[], Service], stdin: BinaryIO, stdout: BinaryIO) -> int:
    """Do one call; returns the exit status."""

    def say(message: dict[str, Any]) -> None:
        # Whoever asked may be gone; the work (or its undo) goes on.
        with suppress(BrokenPipeError):
            stdout.write(json.dumps(message).encode() + b"\n")
            stdout.flush()

    request = json.loads(stdin.readline())
    done, heard = threading.Event(), threading.Event()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if not done.is_set() and not heard.is_set():
            heard.set()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    threading.Thread(target=_interrupt_at_end, args=(stdin, done, heard), daemon=True).start()
    try:
        answer = _call(service(), request["op"], request["args"], lambda step: say({"step": asdict(step)}))
    except UserError as error:
        done.set()
        say({"error": error.as_dict()})
        return error.exit_status
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    done.set()
    say({"result": answer})
    return Exit.OK


def _call(service: Service, op: str, args: dict[str, Any], report: Callable[[Step], None]) -> Any:
    match op:
        case "spawn":
            file = args["policy_file"]
            request = Spawn(name=args["name"], policy_file=None if file is None else Path(file), new=args["new"])
            return service.spawn(request, report).model_dump(mode="json")
        case "destroy":
            return service.destroy(args["name"], force=args["force"], report=report).model_dump(mode="json")
        case _:
            raise UserError("usage", f"the worker knows no call {op!r}", exit_status=Exit.BAD_INPUT)


def _interrupt_at_end(stdin: BinaryIO, done: threading.Event, heard: threading.Event) -> None:
    # Past the buffer: a thread inside it would stop the interpreter from ending.
    while os.read(stdin.fileno(), 4096):
        pass
    # Until it was heard: a signal that comes just before a blocking call does not end that call.
    while not done.is_set():
        os.kill(os.getpid(), signal.SIGINT)
        if heard.wait(_AGAIN_SECONDS):
            return


def main() -> int:
    """Entry point of ``python -m cspace_mcp.worker``, over the service of the working directory's project."""
    from cspace_mcp.host import HostService

    # What the work prints by accident must not be taken for an answer.
    wire = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return run(lambda: HostService(Path.cwd(), os.environ), sys.stdin.buffer, wire)


if __name__ == "__main__":
    sys.exit(main())
