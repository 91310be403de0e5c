"""What of a Docker host can be in the gate's way, seen from inside the containers, so that it works wherever the engine is."""

from __future__ import annotations

from netpolicy.errors import UserError
from sidecars import networks
from sidecars.engine import Engine
from sidecars.instance import InstanceInfo

#: The rules that let questions through to the gate where a host firewall drops what comes from bridges (docs/images.md).
ACCEPTS = ("iptables -I INPUT -i {prefix}+ -j ACCEPT", "ip6tables -I INPUT -i {prefix}+ -j ACCEPT")

#: Asks every address for a name, and prints those that answer, whatever they say.
_ASK = r"""
import socket, sys
QUESTION = b"\x13\x37\x01\0\0\1\0\0\0\0\0\0\x07example\x03com\0\0\1\0\1"
for address in sys.argv[1:]:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(1)
        try:
            asking.connect((address, 53))
            for _ in range(2):
                asking.send(QUESTION)
                try:
                    asking.recv(512)
                except TimeoutError:
                    continue
                print(address)
                break
        except OSError:
            pass
"""
_SOURCE_ROUTES = "cd /proc/sys/net/ipv4/conf && grep -H 1 */accept_source_route || true"


def unanswered(engine: Engine, info: InstanceInfo) -> list[str]:
    """The gateway addresses of an instance that do not answer its questions for names. Only where a policy is in force.

    Raises:
        UserError: as the engine, where nothing can be run in its container.
    """
    network = networks.find(engine, info.project, info.name)
    if network is None or info.container_id is None:
        return []
    asked = [str(address) for address in network.gateways]
    argv = ["/usr/bin/python3", "-I", "-c", _ASK, *asked]
    answered = engine.containers.execs.run(info.container_id, argv, seconds=20).text.split()
    return [address for address in asked if address not in answered]


def source_routes(engine: Engine, gate: str, prefix: str) -> list[str]:
    """The interfaces (of instances, and of those to come) from which the host takes packets that name their own way.

    Args:
        engine: Where it is.
        gate: The gate's container, which is on the host's network.
        prefix: How instances' interfaces begin.
    """
    try:
        lines = engine.containers.execs.run(gate, ["sh", "-c", _SOURCE_ROUTES]).text.split()
    except UserError as error:
        if error.code in ("program-failed", "command-missing"):
            return []
        raise
    found = {line.split("/")[0] for line in lines}
    # The kernel asks for both: the interface's own setting and that of all (ip-sysctl.rst).
    return sorted(n for n in found if n == "default" or n.startswith(prefix)) if "all" in found else []
