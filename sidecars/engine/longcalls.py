"""Long calls of the engine (build, pull, import): messages as they come, a beat while there are none, and a way to stop.

The SDK blocks until the next byte, so the call is made in a thread of its own, on connections of its own that can be cut.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

import docker.errors
import requests.exceptions
import urllib3.exceptions

from sidecars.engine.errors import refused
from sidecars.engine.part import Part
from sidecars.engine.transport import Client

Message = Mapping[str, Any]
BEAT_SECONDS = 0.5
_ENDING_SECONDS = 5.0


class LongCalls(Part):
    """Makes long calls."""

    def messages(
        self, doing: str, call: Callable[[Client], Iterable[Message]]
    ) -> Generator[Message | None, None, None]:
        """The engine's messages; None twice a second while there are none.

        Closing the iterator (or an exception in its reader) cuts the connection, upon which the engine stops the work.

        Args:
            doing: The act and its object, for errors.
            call: Made in another thread, with a client of its own.

        Raises:
            UserError: what the engine refused, before or in the middle of its messages.
        """
        api = self._engine.another_api()
        inbox: queue.SimpleQueue[Message | BaseException | None] = queue.SimpleQueue()

        def work() -> None:
            try:
                for message in call(api):
                    inbox.put(message)
            except (docker.errors.DockerException, requests.exceptions.RequestException,
                    urllib3.exceptions.HTTPError, OSError, ValueError) as error:  # fmt: skip
                inbox.put(error)
            else:
                inbox.put(None)

        worker = threading.Thread(target=work, name=doing, daemon=True)
        worker.start()
        try:
            while True:
                try:
                    found = inbox.get(timeout=BEAT_SECONDS)
                except queue.Empty:
                    yield None
                    continue
                if found is None:
                    return
                if isinstance(found, BaseException):
                    with self._explained(doing):
                        raise found
                if "error" in found:
                    raise refused(str(found["error"]), doing)
                yield found
        finally:
            api.abort()
            worker.join(_ENDING_SECONDS)
            api.close()
