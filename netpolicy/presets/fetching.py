"""One document over HTTPS: certificates verified, bounded in size and in time, never by another scheme."""

from __future__ import annotations

import http.client
import ssl
import threading
import urllib.error
import urllib.request

from netpolicy.clock import Clock

#: GitHub's answer has about half a megabyte.
LARGEST_BYTES = 8 << 20
#: For one step of the connection; the whole has a limit of its own.
_STEP_SECONDS = 10.0
_PIECE = 1 << 16
_TOO_LONG = "the answer took too long"


class Unreachable(OSError):
    """The document could not be had; its message is a clause for people."""


def fetch(url: str, *, seconds: float, clock: Clock) -> bytes:
    """The document at an ``https://`` address, by way of ``HTTPS_PROXY`` where that is set.

    Args:
        url: The address.
        seconds: How long all of it may take.
        clock: What `seconds` are measured by.

    Raises:
        Unreachable: with the reason.
    """
    if not url.startswith("https://"):
        raise Unreachable("only https:// addresses are fetched")
    found: list[bytes | Unreachable] = []

    def work() -> None:
        try:
            found.append(_get(url, seconds, clock))
        except Unreachable as error:
            found.append(error)

    # Looking a name up and reading headers have no limit of their own. Whoever is left behind ends with its own deadlines.
    thread = threading.Thread(target=work, name="netpolicy-fetch", daemon=True)
    thread.start()
    thread.join(seconds)
    answer = found[0] if found else Unreachable(_TOO_LONG)
    if isinstance(answer, Unreachable):
        raise answer
    return answer


def _get(url: str, seconds: float, clock: Clock) -> bytes:
    deadline = clock.monotonic() + seconds
    request = urllib.request.Request(url, headers={"User-Agent": "netpolicy", "Accept": "application/json"})
    try:
        with _opener().open(request, timeout=min(_STEP_SECONDS, seconds)) as response:
            return _body(response, deadline, clock)
    except urllib.error.HTTPError as error:
        raise Unreachable(f"the answer was {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise Unreachable(_plain(error.reason)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(_plain(error)) from error


def _body(response: http.client.HTTPResponse, deadline: float, clock: Clock) -> bytes:
    found = bytearray()
    while piece := response.read1(_PIECE):
        found += piece
        if len(found) > LARGEST_BYTES:
            raise Unreachable(f"the answer is larger than {LARGEST_BYTES >> 20} MiB")
        if clock.monotonic() > deadline:
            raise Unreachable(_TOO_LONG)
    if response.length:
        raise Unreachable("the answer broke off")
    return bytes(found)


def _opener() -> urllib.request.OpenerDirector:
    """Follows redirects to HTTPS alone; the usual one follows them to http and ftp as well."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _plain(reason: object) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"the certificate is not to be trusted: {reason.verify_message}"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason)
