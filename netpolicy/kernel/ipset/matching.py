"""Words of iptables' language: how a service, a set, a mark and a comment are written. Pure."""

from __future__ import annotations

from typing import Final

from netpolicy.flow import PROTOCOLS
from netpolicy.services import Service

#: The bit of a packet's mark that says: our rules let it pass. Refused packets do not have it, and a mark that somebody
#: else overwrites is lost with it, so that whatever happens to the mark on the way, nothing is opened by it.
PASSED: Final = 0x2000000
SET_PASSED: Final = f"-j MARK --set-xmark {PASSED:#x}/{PASSED:#x}"
CLEAR_PASSED: Final = f"-j MARK --set-xmark 0x0/{PASSED:#x}"
HAS_PASSED: Final = f"-m mark --mark {PASSED:#x}/{PASSED:#x}"

_TCP, _UDP, _SCTP, _UDPLITE = (PROTOCOLS[name] for name in ("tcp", "udp", "sctp", "udplite"))
_COMMENT_SIZE: Final = 250


def service(one: Service) -> str:
    """A service of the destination."""
    ports = f"{one.first}" if one.first == one.last else f"{one.first}:{one.last}"
    if one.protocol in (_TCP, _UDP):
        name = "tcp" if one.protocol == _TCP else "udp"
        return f"-p {name}" if (one.first, one.last) == (0, 65535) else f"-p {name} -m {name} --dport {ports}"
    if one.protocol in (_SCTP, _UDPLITE):  # their own matches are in few kernels and in fewer programs
        whole = (one.first, one.last) == (0, 65535)
        return f"-p {one.protocol}" if whole else f"-p {one.protocol} -m multiport --dports {ports}"
    return f"-p {one.protocol}"


def in_set(name: str, *, ports: bool = False) -> str:
    """The destination is in a set, which counts the packet where it has counters."""
    return f"-m set --match-set {name} {'dst,dst' if ports else 'dst'}"


def state(*states: str) -> str:
    """The connection's state."""
    return f"-m conntrack --ctstate {','.join(states)}"


def comment(text: str) -> str:
    """A comment. What would end it, or a line, is replaced."""
    plain = "".join("'" if letter in '"\\' else letter if letter.isprintable() else " " for letter in text)
    short = plain.encode()[:_COMMENT_SIZE].decode(errors="ignore")
    return f'-m comment --comment "{short}"'
