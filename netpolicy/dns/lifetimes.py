"""How long an answer, and the hole it opens in the kernel, live. All in seconds.

The order that must hold at any moment:  the client's TTL  <  what is left of the kernel's element.
"""

from __future__ import annotations

#: A shorter TTL still opens the kernel for so long: answers with TTL 0 must be usable.
FLOOR = 30
#: A longer TTL is cut to this, for the client as well.
CEILING = 3600
#: An element outlives the client's copy of the answer by this, for connections that are being made as it ends.
GRACE = 60
#: A client keeps "no" for so long after it was denied: short, because a grant may follow.
DENIED = 5
#: Upper limit for keeping an upstream's "no such name".
NEGATIVE = 30


def client_ttl(ttl: int) -> int:
    """The TTL that a client is given for an answer with this TTL."""
    return min(ttl, CEILING)


def element_seconds(ttl: int) -> float:
    """The lifetime in the kernel of an address that was answered with this TTL."""
    return float(min(max(ttl, FLOOR), CEILING) + GRACE)
