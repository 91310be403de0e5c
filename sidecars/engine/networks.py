"""Networks of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from docker.types import IPAMConfig, IPAMPool

from netpolicy.errors import UserError
from sidecars.engine.labels import selector
from sidecars.engine.part import Part

BRIDGE_NAME = "com.docker.network.bridge.name"


@dataclass(frozen=True, slots=True)
class Subnet:
    """An address range of a network with the engine's own address in it."""

    range: str
    """CIDR."""
    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A bridge network to be made."""

    name: str
    labels: Mapping[str, str]
    subnets: tuple[Subnet, ...] = ()
    """Empty: the engine chooses one out of its pools."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Driver options, e.g. ``com.docker.network.bridge.name``."""
    ipv6: bool = False
    internal: bool = False


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """A network that exists."""

    id: str
    name: str
    driver: str
    labels: Mapping[str, str]
    options: Mapping[str, str]
    subnets: tuple[Subnet, ...]
    containers: Mapping[str, str]
    """Container id to name, of those that run on it; listings leave it empty, `get` fills it."""

    @property
    def interface(self) -> str:
        """The bridge's interface name on the engine's host."""
        return self.options.get(BRIDGE_NAME) or f"br-{self.id[:12]}"


class Networks(Part):
    """Make, find and remove networks."""

    def create(self, spec: NetworkSpec) -> str:
        """Make a network and return its id.

        Raises:
            UserError: ``name-taken``, ``interface-taken`` (another network has that bridge name), ``subnet-taken``,
                ``pools-exhausted``, ``engine-refused``.
        """
        pools = [IPAMPool(subnet=s.range, gateway=s.gateway) for s in spec.subnets]
        with self._explained(f"creating the network {spec.name}"):
            made = self._api.create_network(
                spec.name,
                driver="bridge",
                options=dict(spec.options),
                ipam=IPAMConfig(driver="default", pool_configs=pools) if pools else None,
                check_duplicate=True,
                internal=spec.internal,
                labels=dict(spec.labels),
                enable_ipv6=spec.ipv6,
            )
            return str(made["Id"])

    def get(self, name: str) -> NetworkInfo | None:
        """The network with this name or id, with the containers on it; None where there is none."""
        try:
            with self._explained(f"inspecting the network {name}"):
                return _info(self._api.inspect_network(name))
        except UserError as error:
            if error.code == "network-missing":
                return None
            raise

    def list(self, labels: Mapping[str, str | None] | None = None) -> list[NetworkInfo]:
        """The networks that carry all these labels (None as a value: any); all networks where none are given."""
        with self._explained("listing networks"):
            filters = {"label": selector(labels)} if labels else None
            return [_info(found) for found in self._api.networks(filters=filters)]

    def remove(self, name: str) -> bool:
        """Remove a network; False where it was not there.

        Raises:
            UserError: ``network-in-use`` while containers are on it.
        """
        try:
            with self._explained(f"removing the network {name}"):
                self._api.remove_network(name)
        except UserError as error:
            if error.code == "network-missing":
                return False
            raise
        return True


def _info(found: Mapping[str, Any]) -> NetworkInfo:
    pools = (found.get("IPAM") or {}).get("Config") or []
    return NetworkInfo(
        id=str(found["Id"]),
        name=str(found["Name"]),
        driver=str(found.get("Driver", "")),
        labels=dict(found.get("Labels") or {}),
        options=dict(found.get("Options") or {}),
        subnets=tuple(Subnet(str(p["Subnet"]), p.get("Gateway")) for p in pools if p.get("Subnet")),
        containers={key: str(value.get("Name", "")) for key, value in (found.get("Containers") or {}).items()},
    )
