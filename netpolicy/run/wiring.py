"""Veth pairs whose both ends work at once."""

from __future__ import annotations

import secrets

from netpolicy.kernel.links import Links


def pair(here: Links, name: str, there: Links, peer: str, peer_namespace: int) -> None:
    """Make a pair from `here` to `there`, both ends down.

    Two ends that have the same interface number count as one device in the kernel's link watch (linkwatch_urgent_event), which
    then reports the carrier, and with it IPv6, up to a second late. Numbers of links that were removed are not used again, so
    one made and removed at one side puts them apart.
    """
    here.veth(name, peer, peer_namespace=peer_namespace)
    if here.index(name) != there.index(peer):
        return
    here.delete(name)
    passing = f"skip-{secrets.token_hex(4)}"
    there.veth(passing, f"{passing}0")
    there.delete(passing)
    here.veth(name, peer, peer_namespace=peer_namespace)
