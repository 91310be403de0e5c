"""The right to look after something in a namespace: one holder, and nobody who is not root or us can keep it from us."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from netpolicy.kernel import netns
from netpolicy.kernel.claim import Claim

pytestmark = pytest.mark.kernel

SQUAT = """
import socket, sys
taken = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
taken.bind("\\0" + sys.argv[1])
taken.listen(1)
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def namespace() -> Iterator[int]:
    made = netns.anonymous()
    yield made
    os.close(made)


def test_one_holder_at_a_time(namespace: int) -> None:
    one, other, elsewhere = Claim("x", namespace), Claim("x", namespace), Claim("x", None)
    assert one.take()
    assert one.take()
    assert not other.take()
    assert elsewhere.take()
    one.release()
    assert other.take()
    for claim in (one, other, elsewhere):
        claim.release()


@pytest.mark.parametrize("uid", [0, 64999])
def test_another_users_claim_says_nothing(namespace: int, uid: int) -> None:
    join = f"/proc/{os.getpid()}/fd/{namespace}"
    words = [
        "nsenter",
        f"--net={join}",
        "setpriv",
        f"--reuid={uid}",
        "--clear-groups",
        sys.executable,
        "-c",
        SQUAT,
        "x",
    ]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as squatter:
        assert squatter.stdin is not None
        assert squatter.stdout is not None
        assert squatter.stdout.readline() == b"taken\n"
        assert Claim("x", namespace).take() == (uid != 0)
        squatter.stdin.close()
