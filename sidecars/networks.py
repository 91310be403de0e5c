"""Networks of instances: small subnets out of a pool of our own, and the bridge whose name reserves the instance's name.

Docker's default pools hold some thirty networks; ours holds thousands, because an instance takes only a /28 and a /64. The bridge
interface is called ``<prefix><tag>`` after the instance, and Docker refuses a second network with the same bridge: creating the
network is the one atomic step that decides between two who want the same name.

Docker's own source NAT is off. The gate makes it, for what its policy lets out; where no gate has been, no reply finds the way back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from netpolicy.attachment import Attachment
from netpolicy.errors import Exit, UserError
from netpolicy.flow import Address
from netpolicy.ruleset import Network
from sidecars import names
from sidecars.engine import BRIDGE_NAME, INSTANCE, PROJECT, Engine, NetworkInfo, NetworkSpec, Subnet

PREFIX = "csp-"
_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
_MTU = "com.docker.network.driver.mtu"
_V4_LENGTH, _V6_LENGTH = 28, 64
_V4_POOL, _V6_POOL = IPv4Network("10.213.0.0/16"), IPv6Network("fd5c:ace0::/48")


@dataclass(frozen=True, slots=True)
class Pool:
    """Where the subnets of instances are cut from: one /28 and one /64 each."""

    v4: IPv4Network = _V4_POOL
    v6: IPv6Network = _V6_POOL

    @classmethod
    def of(cls, networks: Sequence[Network]) -> Pool:
        """A pool of the given networks; a family that is not among them keeps the default."""
        v4 = next((n for n in networks if isinstance(n, IPv4Network)), _V4_POOL)
        v6 = next((n for n in networks if isinstance(n, IPv6Network)), _V6_POOL)
        return cls(v4, v6)

    @property
    def size(self) -> int:
        """How many instances it has room for."""
        return 1 << max(0, min(_V4_LENGTH - self.v4.prefixlen, _V6_LENGTH - self.v6.prefixlen))

    def slot(self, number: int) -> tuple[IPv4Network, IPv6Network]:
        """The subnets of one place, 0 to `size` - 1."""
        v4 = int(self.v4.network_address) + (number << (32 - _V4_LENGTH))
        v6 = int(self.v6.network_address) + (number << (128 - _V6_LENGTH))
        return IPv4Network((v4, _V4_LENGTH)), IPv6Network((v6, _V6_LENGTH))

    def free(self, first: int, taken: Iterable[Network]) -> Iterator[int]:
        """The places that overlap nothing in `taken`, beginning with `first` and going round."""
        used: set[int] = set()
        for network in taken:
            used.update(self._slots(network))
        return (number for step in range(self.size) if (number := (first + step) % self.size) not in used)

    def _slots(self, network: Network) -> range:
        base, bits = (self.v4, 32 - _V4_LENGTH) if isinstance(network, IPv4Network) else (self.v6, 128 - _V6_LENGTH)
        first = (int(network.network_address) - int(base.network_address)) >> bits
        last = (int(network.broadcast_address) - int(base.network_address)) >> bits
        return range(max(first, 0), min(last + 1, self.size))


@dataclass(frozen=True, slots=True)
class InstanceNetwork:
    """The network of one instance."""

    id: str
    name: str
    interface: str
    """The bridge on the engine's host."""
    subnets: tuple[Network, ...]
    gateways: tuple[Address, ...]
    """The host's own addresses on the bridge; the gate answers DNS there."""
    labels: Mapping[str, str]

    def attachment(self, project: str, instance: str) -> Attachment:
        """What the gate is told to firewall."""
        return Attachment(
            id=names.tag(project, instance),
            name=f"{project}/{instance}",
            interface=self.interface,
            networks=self.subnets,
            gateways=self.gateways,
        )


def of(info: NetworkInfo) -> InstanceNetwork:
    """Read a network that exists."""
    gateways = [ip_address(s.gateway.split("/")[0]) for s in info.subnets if s.gateway]
    subnets = tuple(ip_network(s.range, strict=False) for s in info.subnets)
    return InstanceNetwork(info.id, info.name, info.interface, subnets, tuple(gateways), info.labels)


def find(engine: Engine, project: str, instance: str) -> InstanceNetwork | None:
    """The network of an instance, by its labels."""
    found = engine.networks.list({PROJECT: project, INSTANCE: instance})
    return of(found[0]) if found else None


def reserve(
    engine: Engine,
    project: str,
    instance: str,
    labels: Mapping[str, str],
    *,
    pool: Pool | None = None,
    prefix: str = PREFIX,
) -> InstanceNetwork:
    """Make an instance's network, and thereby take its name.

    Raises:
        UserError: ``name-taken`` where somebody else was quicker, ``subnets-exhausted``, or as the engine.
    """
    pool = pool or Pool()
    name, interface = names.object_name(project, instance), prefix + names.tag(project, instance)
    refused: set[int] = set()
    v6 = True
    first = int(hashlib.sha256(f"{project}/{instance}".encode()).hexdigest(), 16) % pool.size
    while True:
        known = engine.networks.list()
        taken = [ip_network(s.range, strict=False) for info in known for s in info.subnets]
        if engine.local:
            taken += [route for route in host_routes() if not _covers(route, pool)]
        # A place of its own by hash: two that begin at once rarely want the same, and a name gets its old addresses again.
        number = next((n for n in pool.free(first, taken) if n not in refused), None)
        if number is None:
            raise UserError(
                "subnets-exhausted",
                f"no free subnet is left in {pool.v4} and {pool.v6} ({pool.size} places)",
                hint="Remove instances that are not needed, or configure a larger gate.pool.",
                exit_status=Exit.CONFLICT,
            )
        spec = _spec(name, interface, labels, pool.slot(number), v6=v6, mtu=_engine_mtu(known))
        try:
            made = engine.networks.create(spec)
        except UserError as error:
            if error.code == "subnet-taken":
                refused.add(number)
                continue
            if error.code in ("interface-taken", "name-taken"):
                raise _taken(instance) from error
            if v6 and error.code == "engine-refused" and "ipv6" in error.message.lower():
                # A host without IPv6: then there is none to filter either.
                v6 = False
                continue
            raise
        info = engine.networks.get(made)
        if info is None:
            raise UserError("network-missing", f"the network {name} vanished while it was being made")
        return of(info)


def host_routes(proc: Path = Path("/proc/net")) -> list[Network]:
    """The networks that this machine has routes to, but for default routes."""
    found: list[Network] = []
    for line in _lines(proc / "route")[1:]:
        _, destination, _, _, _, _, _, mask, *_ = line.split()
        # The kernel prints the addresses as numbers in the machine's (little endian) order.
        address = int.from_bytes(bytes.fromhex(destination)[::-1], "big")
        length = bin(int(mask, 16)).count("1")
        if length:
            found.append(IPv4Network((address, length), strict=False))
    for line in _lines(proc / "ipv6_route"):
        destination, length_hex, *_ = line.split()
        network = IPv6Network((int(destination, 16), int(length_hex, 16)), strict=False)
        if network.prefixlen and not network.is_multicast and not network.is_link_local:
            found.append(network)
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _covers(route: Network, pool: Pool) -> bool:
    """A route to all of the pool (a company's 10.0.0.0/8 by VPN) cannot be avoided; we take little of it."""
    if isinstance(route, IPv4Network):
        return pool.v4.subnet_of(route)
    return pool.v6.subnet_of(route)


def _spec(
    name: str,
    interface: str,
    labels: Mapping[str, str],
    slot: tuple[IPv4Network, IPv6Network],
    *,
    v6: bool,
    mtu: str | None,
) -> NetworkSpec:
    subnets = [Subnet(str(network), str(network[1])) for network in slot if v6 or network.version == 4]
    options = {BRIDGE_NAME: interface, _MASQUERADE: "false"} | ({_MTU: mtu} if mtu else {})
    return NetworkSpec(name, labels, tuple(subnets), options, ipv6=v6)


def _engine_mtu(known: Sequence[NetworkInfo]) -> str | None:
    """What the engine was told for its own bridge (clouds and VPNs need less than 1500); it does not hand it on by itself."""
    return next((info.options.get(_MTU) for info in known if info.name == "bridge"), None)


def _taken(instance: str) -> UserError:
    return UserError(
        "name-taken",
        f"{instance} is taken: another instance with this name exists, or is being made",
        hint="'cspace list' shows it. Choose another name, or none to get the next free one.",
        exit_status=Exit.CONFLICT,
    )
