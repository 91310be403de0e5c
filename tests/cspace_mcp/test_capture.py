"""Output of commands, bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspace_mcp.capture import HEAD, KEPT, TAIL, Capture, Stream


@given(st.lists(st.text(max_size=5000), max_size=8))
def test_what_fits_is_whole_and_what_does_not_has_both_ends(parts: list[str]) -> None:
    stream, whole = Stream(), "".join(parts).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    for part in parts:
        stream.feed(part.encode("utf-8", "surrogatepass"))
    if len(whole) <= HEAD + TAIL:
        assert (stream.text, stream.truncated) == (whole, False)
    else:
        head, _, rest = stream.text.partition("\n[... ")
        assert (head, rest[-TAIL:]) == (whole[:HEAD], whole[-TAIL:])
        assert stream.truncated
        left_out = len(whole.encode()) - len(head.encode()) - len(whole[-TAIL:].encode())
        assert rest.startswith(f"{left_out} bytes left out ...]\n")


def test_bytes_that_are_no_text_are_bounded_too() -> None:
    stream = Stream()
    for _ in range(1000):
        stream.feed(b"\xff" * 1000)
    assert stream.truncated
    assert len(stream.text) < HEAD + TAIL + 100


@pytest.mark.parametrize("size", [0, 1, HEAD, HEAD + TAIL, HEAD + TAIL + 1, 5 * (HEAD + TAIL)])
def test_sizes_at_the_border(size: int) -> None:
    stream = Stream()
    stream.feed(b"x" * size)
    assert stream.truncated is (size > HEAD + TAIL)


def test_the_whole_is_kept_in_order_up_to_a_limit() -> None:
    with Capture() as capture:
        capture.feed(1, b"out")
        capture.feed(2, b"err")
        assert capture.whole() == b"outerr"
        assert (capture.stdout.text, capture.stderr.text) == ("out", "err")
        for _ in range(20):
            capture.feed(1, b"x" * (1 << 20))
        assert capture.truncated
        assert len(capture.whole()) == capture.kept == KEPT
