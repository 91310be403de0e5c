"""Is a provider's list of networks one to open a firewall for? A bad line is left out; an absurd list is refused as a whole. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from netpolicy import spans
from netpolicy.addresses import FORBIDDEN, Network, plain_network

#: No provider of one service has a network as wide as this, in bits of prefix; above all not the whole internet.
NARROWEST = {4: 12, 6: 20}
#: Nor does it have so much altogether: as many addresses as in one network of these bits of prefix.
NARROWEST_ALTOGETHER = {4: 8, 6: 16}

#: Networks in one spelling by the key of the provider's list.
Lists = dict[str, tuple[str, ...]]


class Absurd(ValueError):
    """The list as a whole cannot be believed; its message is a clause for people."""


def judged(document: Any, keys: Iterable[str], former: Mapping[str, Iterable[str]]) -> tuple[Lists, tuple[str, ...]]:
    """The networks of a provider's answer.

    Args:
        document: The answer, as JSON has it.
        keys: The lists that are wanted of it.
        former: The lists that are known so far; less than half of one of them is refused.

    Returns:
        The lists in the order of the answer, without repetition; and a sentence for each line that is left out.

    Raises:
        Absurd: a list is absent, empty, shrunken, or has networks that no provider has.
    """
    if not isinstance(document, Mapping):
        raise Absurd("it is no JSON object")
    lists: Lists = {}
    dropped: list[str] = []
    for key in keys:
        lists[key] = _list(document, key, dropped)
        known = len(tuple(former.get(key, ())))
        if len(lists[key]) * 2 < known:
            raise Absurd(f"its list {key!r} has {len(lists[key])} networks, less than half of the {known} known so far")
    return lists, tuple(dropped)


def _list(document: Mapping[str, Any], key: str, dropped: list[str]) -> tuple[str, ...]:
    entries = document.get(key)
    if not isinstance(entries, list):
        raise Absurd(f"it has no list {key!r}")
    found: dict[str, None] = {}
    for index, entry in enumerate(entries):
        try:
            # A number would be a network to `ipaddress`.
            network = plain_network(ip_network(entry if isinstance(entry, str) else ""))
        except ValueError:
            dropped.append(f"{key}[{index}] {repr(entry)[:60]} is left out: it is no network")
        else:
            _refuse_absurd(network, key)
            found[str(network)] = None
    if not found:
        raise Absurd(f"its list {key!r} is empty")
    _refuse_sprawling([ip_network(text) for text in found], key)
    return tuple(found)


def _refuse_absurd(network: Network, key: str) -> None:
    if network.prefixlen < NARROWEST[network.version]:
        raise Absurd(f"its list {key!r} has {network}, which is far too wide")
    for block, what, _source in FORBIDDEN:
        if network.version == block.version and network.overlaps(block):
            raise Absurd(f"its list {key!r} has {network}, which is {what} ({block})")


def _refuse_sprawling(networks: Sequence[Network], key: str) -> None:
    """Many networks, none too wide by itself, can make up the internet as well."""
    for version, length in NARROWEST_ALTOGETHER.items():
        some = spans.of_networks([network for network in networks if network.version == version], version)
        size = sum(last - first + 1 for first, last in some.pairs)
        if size > 1 << (32 if version == 4 else 128) - length:
            raise Absurd(f"its list {key!r} has more addresses of IPv{version} than a /{length}, which is far too many")
