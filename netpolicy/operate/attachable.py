"""What can be attached: an interface of this machine with a network behind it, or a namespace."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from pathlib import Path

from netpolicy.attachment import Attachment
from netpolicy.errors import Exit, UserError
from netpolicy.flow import Address
from netpolicy.kernel import netns
from netpolicy.kernel.links import Links

_LONGEST_ID = 16
#: With this the prefix of an id leaves room for a mark of four digits.
_LONGEST_STEM = _LONGEST_ID - 4


@dataclass(frozen=True, slots=True)
class Candidate:
    """Where a firewall is wanted."""

    attachment: Attachment
    """With an id that may have to give way to another's (`named`)."""
    bridge: bool = False
    """Whether something can be plugged in, so that probes can be made from inside."""
    network: str | None = None
    """The Docker network it is, if we were told."""
    namespace: str | None = None
    """What opens the namespace, at the output hook."""
    inode: int | None = None
    """The namespace's number, at the output hook."""


def of_interface(interface: str, *, name: str | None = None, network: str | None = None) -> Candidate:
    """The network behind an interface, by the interface's own addresses.

    Args:
        interface: A bridge, or the router's end of a wire.
        name: For people; by default the network's name or the interface's.
        network: The Docker network that it belongs to.

    Raises:
        UserError: ``link-missing``; ``bad-interface``: it leads out of this machine, is the loopback, or has no address.
    """
    with Links() as links:
        links.index(interface)
        if interface == "lo" or interface in links.ways_out():
            what = "this machine's loopback" if interface == "lo" else "this machine's own way out (a default route)"
            raise _bad(interface, f"it is {what}, not a network of workloads", "Name the bridge of the workloads.")
        own, bridge = links.addresses(interface), links.is_bridge(interface)
    own = [address for address in own if not address.ip.is_link_local]
    if not own:
        raise _bad(
            interface,
            "it has no address, so nothing behind it is routed by this machine",
            "Give it one, or attach another.",
        )
    attachment = Attachment(
        identifier(interface),
        name or network or interface,
        interface,
        tuple(dict.fromkeys(address.network for address in own)),
        tuple(_first(own).values()),
        published=True,
    )
    return Candidate(attachment, bridge, network)


def of_namespace(text: str, *, name: str | None = None) -> Candidate:
    """The processes of a network namespace: a name that ``ip netns`` knows, the id of a process in it, or a path.

    Raises:
        UserError: ``no-namespace``; ``bad-namespace``: it is this program's own.
    """
    path, inode = namespace_path(text), _inode(text)
    if inode == _own():
        raise UserError(
            "bad-namespace",
            f"{text} is in this machine's own network namespace, whose programs include the gate itself",
            hint="Name another namespace with --netns, or firewall one command with 'netpolicy run'.",
            exit_status=Exit.BAD_INPUT,
        )
    hosts = netns.call(path, _hosts)
    attachment = Attachment(f"ns{inode}"[-_LONGEST_ID:], name or f"netns {text}", "", (), hosts, "output")
    return Candidate(attachment, namespace=path, inode=inode)


def behind(text: str) -> None:
    """Make sure that a namespace can be behind the firewall: a name, the id of a process in it, or a path.

    Raises:
        UserError: ``no-namespace``; ``bad-namespace``: it is this program's own, from where a block would look like a breach.
    """
    if _inode(text) == _own():
        raise UserError(
            "bad-namespace",
            f"{text} is in this machine's own network namespace, which is not behind the firewall",
            hint="Name a process that is behind it, or its namespace: --from PID, or --from NAME.",
            exit_status=Exit.BAD_INPUT,
        )


def _inode(text: str) -> int:
    try:
        return Path(namespace_path(text)).stat().st_ino
    except OSError as error:
        why = "" if isinstance(error, FileNotFoundError) else f": {error.strerror}"
        raise UserError(
            "no-namespace", f"there is no network namespace {text!r}{why}", exit_status=Exit.MISSING
        ) from error


def _own() -> int:
    return Path("/proc/self/ns/net").stat().st_ino


def namespace_path(text: str) -> str:
    """What opens a namespace: of a process where `text` is a number, else of a name or a path."""
    return f"/proc/{text}/ns/net" if text.isdecimal() else str(netns.path_of(text))


def is_bridge(interface: str) -> bool:
    """Whether it is a bridge. Raises UserError ``link-missing``."""
    with Links() as links:
        return links.is_bridge(interface)


def identifier(interface: str) -> str:
    """The id of an interface's attachment: the name without what an id may not have."""
    plain = re.sub("[^a-z0-9]", "", interface.lower())
    return plain if plain and len(plain) <= _LONGEST_ID else _marked(plain, interface)


def named(candidate: Candidate, taken: Mapping[str, str], wanted: Collection[str] = ()) -> Candidate:
    """The candidate with an id that nothing else has.

    Args:
        candidate: What is to be attached.
        taken: The interfaces of what is attached, by id.
        wanted: Ids that are to be avoided besides.
    """
    attachment = candidate.attachment
    for held, interface in taken.items():
        if interface == attachment.interface:
            return replace(candidate, attachment=replace(attachment, id=held))
    if attachment.id in taken or attachment.id in wanted:
        attachment = replace(attachment, id=_marked(attachment.id, attachment.interface))
    return replace(candidate, attachment=attachment)


def _marked(stem: str, interface: str) -> str:
    return stem[:_LONGEST_STEM] + hashlib.sha256(interface.encode()).hexdigest()[:4]


def _first(addresses: list[IPv4Interface | IPv6Interface]) -> dict[int, Address]:
    """The first address of each family."""
    found: dict[int, Address] = {}
    for address in addresses:
        found.setdefault(address.version, address.ip)
    return found


def _hosts() -> tuple[Address, ...]:
    """The next hops of the default routes of the thread's namespace, at most one a family: what counts as the host there."""
    found: dict[int, Address] = {}
    for line in _lines("route")[1:]:
        words = line.split()
        if words[1] == "00000000" and words[7] == "00000000" and words[2] != "00000000":
            found.setdefault(4, ip_address(bytes.fromhex(words[2])[::-1]))
    for words in map(str.split, _lines("ipv6_route")):
        hop = ip_address(bytes.fromhex(words[4]))
        if words[1] == "00" and words[9] != "lo" and int(hop) and not hop.is_link_local:
            found.setdefault(6, hop)
    return tuple(found.values())


def _lines(table: str) -> list[str]:
    try:
        return Path("/proc/thread-self/net", table).read_text().splitlines()
    except FileNotFoundError:
        return []


def _bad(interface: str, why: str, hint: str) -> UserError:
    return UserError("bad-interface", f"cannot attach {interface}: {why}", hint=hint, exit_status=Exit.BAD_INPUT)
