"""HTTP of the lab: pages published by host and path, and for everything else a line that names who was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ")


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked."""

    method: str
    host: str
    """From the Host header, lower case, without the port."""
    path: str
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes
    destination: str
    """The endpoint that was connected to, e.g. ``192.0.2.7:443``."""
    tls: bool


@dataclass(frozen=True, slots=True)
class Response:
    """What it gets."""

    body: bytes
    status: int = 200
    content_type: str = "text/plain"


Page = Callable[[Request], Response]


class Web:
    """The pages of all sites."""

    def __init__(self) -> None:
        self._pages: dict[tuple[str, str], Page] = {}
        self.requests: list[Request] = []
        """Every request so far."""

    def publish(self, host: str, path: str, page: bytes | Page) -> None:
        """Let ``http(s)://HOST/PATH`` answer with these bytes, or with what a function returns (called in the lab's loop)."""
        if isinstance(page, bytes):
            body = page
            page = lambda _request: Response(body)  # noqa: E731
        self._pages[host, path] = page

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes, destination: str
    ) -> None:
        """Answer one request, whose first bytes have been read already."""
        head = first + (b"" if b"\r\n\r\n" in first else await reader.readuntil(b"\r\n\r\n"))
        head, _, body = head.partition(b"\r\n\r\n")
        line, *lines = head.decode(errors="replace").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (text.partition(":") for text in lines)}
        length = int(headers.get("content-length", 0))
        if len(body) < length:
            body += await reader.readexactly(length - len(body))
        method, path, *_ = [*line.split(" "), "/"]
        host = headers.get("host", "").rsplit(":", 1)[0].lower()
        tls = writer.get_extra_info("ssl_object") is not None
        request = Request(method, host, path.partition("?")[0], headers, body, destination, tls)
        self.requests.append(request)
        page = self._pages.get((host, request.path))
        response = page(request) if page else Response(f"netpolicy-lab {host} {destination} {path}\n".encode())
        writer.write(
            f"HTTP/1.1 {response.status} Lab\r\nContent-Type: {response.content_type}\r\n"
            f"Content-Length: {len(response.body)}\r\nConnection: close\r\n\r\n".encode()
            + (b"" if method == "HEAD" else response.body)
        )
        await writer.drain()
