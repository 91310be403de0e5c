"""The Messages API on 127.0.0.1, with a script instead of a model.

The turn to play is chosen by the number of assistant messages in the request, so that retries and resumed sessions stay right.
Requests without tools (titles, summaries) are answered "ok".
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Turn:
    """What the model says once: text, and tools to call."""

    text: str = ""
    tools: tuple[tuple[str, dict[str, Any]], ...] = ()


def say(text: str) -> Turn:
    """An answer that ends the conversation."""
    return Turn(text)


def use(name: str, /, **arguments: Any) -> Turn:
    """A call of a tool of the server `cspace`."""
    return Turn(tools=((f"mcp__cspace__{name}", arguments),))


class ScriptedMessages:
    """The API. Use as a context manager; `url` is what ``ANTHROPIC_BASE_URL`` takes."""

    def __init__(self, script: Sequence[Turn]) -> None:
        self.script = tuple(script)
        self.requests: list[dict[str, Any]] = []
        self.paths: set[str] = set()
        self._lock = threading.Lock()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                kind, answer = api.answer(self.path.split("?")[0], body)
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_GET(self) -> None:
                api.paths.add(f"GET {self.path}")
                self.send_error(404)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                """Nothing: a test's output is its own."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def results(self) -> list[tuple[bool, str]]:
        """What the model has seen of its tools, in order: (whether it was an error, text)."""
        found: dict[str, tuple[bool, str]] = {}
        for request in self.requests:
            for message in request["messages"]:
                for block in message["content"] if isinstance(message["content"], list) else []:
                    if block.get("type") == "tool_result":
                        found[block["tool_use_id"]] = (bool(block.get("is_error")), _text(block.get("content")))
        return [found[key] for key in sorted(found, key=_order)]

    @property
    def told(self) -> str:
        """Everything that was sent to the model, for looking up what it was told of the server."""
        return json.dumps(self.requests)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[str, bytes]:
        with self._lock:
            self.paths.add(f"POST {path}")
            if path.endswith("/count_tokens"):
                return "application/json", b'{"input_tokens": 10}'
            if not body.get("tools"):
                message = _message("ok", [], body)
            else:
                self.requests.append(body)
                number = sum(1 for entry in body["messages"] if entry["role"] == "assistant")
                turn = self.script[number] if number < len(self.script) else say("the script is over")
                blocks = [
                    {"type": "tool_use", "id": f"toolu_{number:03}_{index:03}", "name": name, "input": arguments}
                    for index, (name, arguments) in enumerate(turn.tools)
                ]
                message = _message(turn.text, blocks, body)
        if body.get("stream"):
            return "text/event-stream", _events(message)
        return "application/json", json.dumps(message).encode()

    def __enter__(self) -> ScriptedMessages:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _order(key: str) -> tuple[str, ...]:
    return tuple(key.split("_")[1:])


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text", "") for block in content or [])


def _message(text: str, tools: list[dict[str, Any]], body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", "scripted"),
        "content": [*([{"type": "text", "text": text}] if text else []), *tools],
        "stop_reason": "tool_use" if tools else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 10},
    }


def _events(message: dict[str, Any]) -> bytes:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}
    ]
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            empty, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty, delta = (
                {**block, "input": {}},
                {"type": "input_json_delta", "partial_json": json.dumps(block["input"])},
            )
        events += [
            {"type": "content_block_start", "index": index, "content_block": empty},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events += [{"type": "message_delta", "delta": end, "usage": {"output_tokens": 10}}, {"type": "message_stop"}]
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
