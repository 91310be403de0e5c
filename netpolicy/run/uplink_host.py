"""The root form's uplink: a veth pair into the host's namespace, which forwards and translates.

On the host: the pair's end (it goes with the router namespace), a table of our own that translates the router's addresses, the
forwarding settings, and where Docker drops what it does not know, two rules in the chain that it leaves to its users.
"""

from __future__ import annotations

import secrets
import shutil
from ipaddress import IPv4Network, IPv6Network

from netpolicy import command
from netpolicy.errors import Exit, UserError
from netpolicy.kernel.links import Links
from netpolicy.kernel.netlink import KernelError, Message, Netlink, refuse
from netpolicy.kernel.nftables import expressions as e
from netpolicy.kernel.nftables.messages import Hook, Table
from netpolicy.run import networks, wiring
from netpolicy.run.hostside import Registry
from netpolicy.run.uplink import INTERFACE, Kind, Reach

_SRCNAT = 100


class HostUplink:
    """See the module. The registry must have a watcher already (`hostside.watch_over`)."""

    kind: Kind = "host"

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._tag = secrets.token_hex(4)
        self.interface = f"npr-{self._tag}"
        """The host's end of the pair."""

    def connect(self, router: int) -> Reach:
        """See `Uplink`. Raises UserError ``uplink-blocked`` where the host's firewall would drop what we forward."""
        self._registry.collect()
        v4, v6 = networks.default_routes()
        four, six = networks.free_v4(), networks.free_v6()
        rules = _docker_rules(self.interface)
        table = f"npr_{self._tag}"
        self._registry.record(table=table, rules=[["-D" if w == "-I" else w for w in words] for words in rules])
        with Links() as host, Links(router) as inside:
            wiring.pair(host, self.interface, inside, INTERFACE, router)
            for links, name, last in ((host, self.interface, 1), (inside, INTERFACE, 2)):
                links.address(name, f"{four[last]}/30")
                links.address(name, f"{six[last]}/64")
                links.up(name)
            if v4:
                inside.route("0.0.0.0/0", via=str(four[1]))
            if v6:
                inside.route("::/0", via=str(six[1]))
        _translate(table, self.interface, four, six)
        for words in rules:
            command.run(words, seconds=20)
        self._registry.forward(v6=v6)
        return Reach(v4, v6)

    def close(self) -> None:
        """See `Uplink`."""
        with Links() as host:
            host.delete(self.interface)
        self._registry.collect(own=True)


def _translate(table_name: str, interface: str, four: IPv4Network, six: IPv6Network) -> None:
    """Source NAT for the router's two addresses, wherever they leave but back to it."""
    table = Table(table_name)
    messages: list[Message] = [table.add(), table.add_base_chain("leave", Hook.POSTROUTING, _SRCNAT, "nat")]
    for network in (four, six):
        version = network.version
        source = (*e.family_is(version), e.load_source(version), e.compare(network[2].packed))
        elsewhere = (e.meta(e.Meta.OIFNAME), e.compare(e.interface_key(interface), e.Cmp.NEQ))
        messages.append(table.add_rule("leave", *source, *elsewhere, e.masquerade(), comment="netpolicy run"))
    link = Netlink()
    try:
        link.transaction(messages)
    except KernelError as error:
        refuse(error, "translate addresses on the host")
    finally:
        link.close()


def _docker_rules(interface: str) -> list[list[str]]:
    """Commands that let our forwarded packets pass where the host drops what it does not know; none where it does not.

    Raises:
        UserError: ``uplink-blocked``: it drops, and has no chain that is for others.
    """
    rules = []
    for program in ("iptables", "ip6tables"):
        if shutil.which(program) is None:
            continue
        listed = command.run([program, "-w", "-S"], seconds=20, ok=range(256)).text.splitlines()
        if "-P FORWARD DROP" not in listed:
            continue
        if "-N DOCKER-USER" not in listed:
            raise UserError(
                "uplink-blocked",
                f"the host drops what it forwards ({program}: policy DROP of FORWARD), and has no chain DOCKER-USER",
                hint="Use '--uplink pasta', which does not pass there, or accept forwarding from and to interfaces 'npr-+'.",
                exit_status=Exit.CONFLICT,
            )
        for match in (["-i", interface], ["-o", interface]):
            rules.append([program, "-w", "-I", "DOCKER-USER", *match, "-j", "ACCEPT"])
    return rules
