"""A question: which flow does a text such as ``github.com``, ``192.0.2.1:22`` or ``https://example.com/path`` mean?"""

from __future__ import annotations

import re

from netpolicy.errors import Exit, UserError
from netpolicy.flow import PORTED, PROTOCOLS, Flow
from netpolicy.policy import target
from netpolicy.policy.problems import Refused, shown
from netpolicy.services import Service

#: The port that a URL's scheme implies.
_SCHEMES = {"https": 443, "http": 80, "wss": 443, "ws": 80, "ssh": 22, "git+ssh": 22, "git": 9418}
_DEFAULT = Service(PROTOCOLS["tcp"], 443, 443)
_SCP = re.compile(r"[^@/:\s]+@(?P<host>[^@/:\s]+):(?![0-9]+(?:/|\Z))", re.ASCII)


def parse_flow(text: str) -> Flow:
    """Read a question: a target with at most one port (tcp/443 where it has none), a URL, or git's ``user@host:path``.

    Raises:
        UserError: ``bad-target``, exit status 2.
    """
    try:
        return read(text.strip())
    except Refused as refusal:
        raise UserError("bad-target", f"{shown(text)}: {refusal}", exit_status=Exit.BAD_INPUT) from refusal


def read(text: str) -> Flow:
    """The same, for the language itself. Raises Refused."""
    wanted = target.read(_plain_target(text))
    services = wanted.services or (_DEFAULT,)
    service = services[0]
    if service.first != service.last or (len(services) > 1 and service.protocol in PORTED):
        raise Refused("a question is about one port; write one such as :443")
    port = service.first or None
    if isinstance(wanted.host, str):
        return Flow(service.protocol, port, name=wanted.host)
    if wanted.host.prefixlen != wanted.host.max_prefixlen:
        raise Refused("a question is about one address, not a network; write one of its addresses")
    return Flow(service.protocol, port, address=wanted.host.network_address)


def _plain_target(text: str) -> str:
    if "://" not in text:
        scp = _SCP.match(text)
        return f"{scp['host']}:22" if scp else text
    scheme, _, rest = text.partition("://")
    port = _SCHEMES.get(scheme.lower())
    if port is None:
        raise Refused(f"the port of {scheme}:// is not known here; write host:port")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2].removesuffix(":")
    has_port = ":" in authority.rpartition("]")[2]
    return authority if has_port else f"{authority}:{port}"
