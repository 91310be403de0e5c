"""nf_tables expressions: the instructions of a rule, packed (linux/netfilter/nf_tables.h).

A rule is a list of expressions; the first one that does not match ends it. Values go through registers of four bytes:
`R` is the first, and a key of several fields fills consecutive ones, each field padded to four bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import Final, ParamSpec, TypeVar

from netpolicy.flow import Address
from netpolicy.kernel import attributes as a
from netpolicy.ruleset import Network

R: Final = 8  # NFT_REG32_00
_VERDICT: Final = 0  # NFT_REG_VERDICT


class Cmp(IntEnum):
    """`enum nft_cmp_ops`."""

    EQ, NEQ, LT, LTE, GT, GTE = range(6)


class Meta(IntEnum):
    """`enum nft_meta_keys`, those we use."""

    IIFNAME = 6
    OIFNAME = 7
    NFPROTO = 15
    L4PROTO = 16
    PKTTYPE = 19


class Verdict(IntEnum):
    """`enum nft_verdicts` and the netfilter verdicts."""

    DROP = 0
    ACCEPT = 1
    JUMP = -3
    GOTO = -4


class State(IntEnum):
    """Bits of ``ct state`` (nf_conntrack_common.h, NF_CT_STATE_BIT)."""

    INVALID = 1
    ESTABLISHED = 2
    RELATED = 4
    NEW = 8
    UNTRACKED = 64


P = ParamSpec("P")
T = TypeVar("T")


def _remembered(function: Callable[P, T]) -> Callable[P, T]:
    """The same few expressions make up most rules; packing them anew would be most of the work of a small policy."""
    cached: Callable[P, T] = lru_cache(maxsize=512)(function)  # type: ignore[assignment]  # it keeps the parameters
    return cached


def expression(name: str, *parts: bytes) -> bytes:
    """One element of a rule's expression list."""
    return a.nest(1, a.text(1, name), a.nest(2, *parts))


@_remembered
def meta(key: Meta, register: int = R) -> bytes:
    """Load a property of the packet."""
    return expression("meta", a.be32(1, register), a.be32(2, key))


@_remembered
def payload(base: int, offset: int, length: int, register: int = R) -> bytes:
    """Load header bytes; base 1 is the network header, 2 the transport header."""
    return expression("payload", a.be32(1, register), a.be32(2, base), a.be32(3, offset), a.be32(4, length))


@_remembered
def compare(value: bytes, op: Cmp = Cmp.EQ, register: int = R) -> bytes:
    """Go on only if the register compares so to `value`; a shorter value compares a prefix of the register."""
    return expression("cmp", a.be32(1, register), a.be32(2, op), a.nest(3, a.attr(1, value)))


def mask(bits: bytes, source: int = R, target: int = R) -> bytes:
    """target = source & bits."""
    return expression(
        "bitwise",
        a.be32(1, source),
        a.be32(2, target),
        a.be32(3, len(bits)),
        a.nest(4, a.attr(1, bits)),
        a.nest(5, a.attr(1, bytes(len(bits)))),
    )


def load(value: bytes, register: int) -> bytes:
    """Load a constant."""
    return expression("immediate", a.be32(1, register), a.nest(2, a.attr(1, value)))


@_remembered
def lookup(name: str, register: int = R) -> bytes:
    """Go on only if the set holds the key in the registers."""
    return expression("lookup", a.text(1, name), a.be32(2, register))


@_remembered
def lookup_missing(name: str, register: int = R) -> bytes:
    """Go on only if the set does not hold the key in the registers."""
    return expression("lookup", a.text(1, name), a.be32(2, register), a.be32(5, 1))


@_remembered
def add_to_set(name: str, register: int = R) -> bytes:
    """Put the key in the registers into the set, with a counter of its packets; where the set is full, end the rule."""
    counter = a.text(1, "counter"), a.nest(2, a.be64(1, 0), a.be64(2, 0))
    return expression("dynset", a.text(1, name), a.be32(3, 0), a.be32(4, register), a.nest(7, *counter))


@_remembered
def dispatch(name: str, register: int = R) -> bytes:
    """Take the verdict that the map holds for the key; go on to the next rule where it holds none."""
    return expression("lookup", a.text(1, name), a.be32(2, register), a.be32(3, _VERDICT))


@_remembered
def verdict(code: Verdict, chain: str = "") -> bytes:
    """End here, or with GOTO go on in another chain for good."""
    return expression("immediate", a.be32(1, _VERDICT), a.nest(2, verdict_data(code, chain)))


def verdict_data(code: Verdict, chain: str = "") -> bytes:
    """A verdict as data: of an immediate, or of a map's element."""
    return a.nest(2, a.be32(1, code), *((a.text(2, chain),) if chain else ()))


def accept() -> bytes:
    """Let the packet pass this hook's chain of ours (chains of others still see it)."""
    return verdict(Verdict.ACCEPT)


def drop() -> bytes:
    """Drop without an answer."""
    return verdict(Verdict.DROP)


def jump(chain: str) -> bytes:
    """Go through `chain` and come back."""
    return verdict(Verdict.JUMP, chain)


def goto(chain: str) -> bytes:
    """Go on in `chain`, for good."""
    return verdict(Verdict.GOTO, chain)


@_remembered
def state(*states: State) -> tuple[bytes, ...]:
    """The connection is in one of these states."""
    bits = struct.pack("=I", sum(states))
    return expression("ct", a.be32(1, R), a.be32(2, 0)), mask(bits), compare(bytes(4), Cmp.NEQ)


@_remembered
def translated() -> tuple[bytes, ...]:
    """Somebody has translated the connection's destination (``ct status dnat``): a published port, for example."""
    dnat = struct.pack("=I", 1 << 5)  # IPS_DST_NAT
    return expression("ct", a.be32(1, R), a.be32(2, 2)), mask(dnat), compare(bytes(4), Cmp.NEQ)


@_remembered
def count(name: str) -> bytes:
    """Count the packet in a named counter."""
    return expression("objref", a.be32(1, 1), a.text(2, name))


@_remembered
def reset() -> bytes:
    """Refuse a TCP segment by RST."""
    return expression("reject", a.be32(1, 1), a.attr(2, b"\0"))


@_remembered
def prohibit() -> bytes:
    """Refuse by ICMP or ICMPv6 "administratively prohibited"."""
    return expression("reject", a.be32(1, 2), a.attr(2, b"\3"))


def route_back_missing() -> tuple[bytes, ...]:
    """The route to the packet's sender does not lead out of the interface it came in by (``fib saddr . iif oif missing``)."""
    by_source_and_interface = 1 | 8  # NFTA_FIB_F_SADDR, NFTA_FIB_F_IIF
    fib = expression("fib", a.be32(1, R), a.be32(2, 1), a.be32(3, by_source_and_interface | 32))
    return fib, compare(bytes(4))


@_remembered
def masquerade() -> bytes:
    """Source NAT to the outgoing interface's address."""
    return expression("masq")


def redirect_to(address: Address, port: int) -> tuple[bytes, ...]:
    """Destination NAT to one address and port."""
    family = 2 if address.version == 4 else 10
    port_register = R + len(address.packed) // 4
    nat = expression(
        "nat",
        a.be32(1, 1),
        a.be32(2, family),
        a.be32(3, R),
        a.be32(4, R),
        a.be32(5, port_register),
        a.be32(6, port_register),
    )
    return load(address.packed, R), load(struct.pack(">H", port), port_register), nat


# What people write as one condition, made of the above.


@_remembered
def protocol_is(number: int) -> tuple[bytes, ...]:
    """The transport protocol (behind IPv6 extension headers, too)."""
    return meta(Meta.L4PROTO), compare(bytes([number]))


@_remembered
def family_is(version: int) -> tuple[bytes, ...]:
    """IPv4 or IPv6."""
    return meta(Meta.NFPROTO), compare(bytes([2 if version == 4 else 10]))


@_remembered
def interface_is(key: Meta, name: str) -> tuple[bytes, ...]:
    """The incoming or outgoing interface."""
    return meta(key), compare(interface_key(name))


@_remembered
def interface_begins(key: Meta, prefix: str) -> tuple[bytes, ...]:
    """The interface's name begins so."""
    return meta(key), compare(prefix.encode())


def interface_key(name: str) -> bytes:
    """An interface's name as the kernel compares it: 16 bytes."""
    return name.encode().ljust(16, b"\0")


@_remembered
def port_between(first: int, last: int) -> tuple[bytes, ...]:
    """The destination port, inclusive. The protocol must have been checked before."""
    port = payload(2, 2, 2)
    low, high = struct.pack(">H", first), struct.pack(">H", last)
    if first == last:
        return port, compare(low)
    return port, compare(low, Cmp.GTE), compare(high, Cmp.LTE)


@_remembered
def load_source(version: int) -> bytes:
    """Load the source address. The family must have been checked before."""
    return payload(1, 12, 4) if version == 4 else payload(1, 8, 16)


@_remembered
def load_destination(version: int) -> bytes:
    """Load the destination address. The family must have been checked before."""
    return payload(1, 16, 4) if version == 4 else payload(1, 24, 16)


@_remembered
def not_in(networks: tuple[Network, ...]) -> tuple[bytes, ...]:
    """The address in the registers lies in none of the networks (all of one family)."""
    found: list[bytes] = []
    for network in networks:
        target = R + _words(network)
        found += [
            mask(network.netmask.packed, R, target),
            compare(network.network_address.packed, Cmp.NEQ, target),
        ]
    return tuple(found)


@_remembered
def opened_from(network: Network) -> tuple[bytes, ...]:
    """The connection's first packet came from the network (``ct original ip saddr``)."""
    key = 19 if network.version == 4 else 21  # NFT_CT_SRC_IP, NFT_CT_SRC_IP6
    source = expression("ct", a.be32(1, R), a.be32(2, key), a.attr(3, b"\0"))
    return source, mask(network.netmask.packed), compare(network.network_address.packed)


def _words(network: IPv4Network | IPv6Network) -> int:
    return len(network.network_address.packed) // 4
