"""The shape of the configuration. Every key has an effect; what it is, docs/config.md says in the same words.

Messages of the checks here complete the sentence ``FILE: KEY = VALUE: ...``.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from netpolicy.errors import UserError
from netpolicy.policy import upstream
from netpolicy.policy.problems import Refused
from sidecars import names

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kmgt]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
#: Docker refuses less than this.
_LEAST_MEMORY = 6 << 20


def _wrong(message: str) -> PydanticCustomError:
    # Braces would be read as fields of a template.
    return PydanticCustomError("cspace", "{text}", {"text": message})


def _project_name(value: str) -> str:
    try:
        valid = names.project(value)
    except UserError:
        valid = "my-project"
    if valid != value:
        raise _wrong(f"must be at most {names.LONGEST} lower-case letters, digits and dashes, e.g. {valid!r}")
    return value


def _environment(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name):
            raise _wrong(f"{name!r} is not a variable's name: letters, digits and underscores, no digit first")
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise _wrong(f"the value of {name} must be a string or a number")
    return {name: str(text) for name, text in value.items()}


def _memory(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        size = int(float(match[1]) * _UNITS[match[2].lower()])
    else:
        raise _wrong("must be a size such as '4g' or '512m' (k, m, g, t: powers of 1024)")
    if size < _LEAST_MEMORY:
        raise _wrong("must be at least 6m")
    return size


#: Networks that nobody's public addresses are in (RFC 1918, RFC 6598, RFC 4193).
_PRIVATE = tuple(ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fd00::/8"))


def _networks(value: Any) -> Any:
    rows = [value] if isinstance(value, str) else value
    if not isinstance(rows, list) or not rows:
        raise _wrong("must be a list of networks, e.g. ['10.213.0.0/16', 'fd5c:ace0::/48']")
    found: list[IPv4Network | IPv6Network] = []
    for row in rows:
        try:
            network = ip_network(row)
        except ValueError as error:
            raise _wrong(f"{row!r} is not a network: {error}") from error
        if network.prefixlen > (28 if network.version == 4 else 64):
            raise _wrong(f"{row} is too small: an instance takes a /28 (IPv4) and a /64 (IPv6) of the pool")
        if not any(network[0] in own and network[-1] in own for own in _PRIVATE):
            raise _wrong(
                f"{row} is not a private network: the host would send what it means for others to the instances; "
                "give a part of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10 or fd00::/8"
            )
        if any(known.version == network.version for known in found):
            raise _wrong("holds two networks of one family; give at most one IPv4 and one IPv6 network")
        found.append(network)
    return tuple(found)


def _upstreams(value: Any) -> Any:
    rows = [value] if isinstance(value, str) else value
    if not isinstance(rows, list) or not rows:
        raise _wrong('must be a list of resolvers, such as ["192.0.2.53", "192.0.2.54:5353"]')
    try:
        return tuple(upstream.canonical(row) for row in rows)
    except Refused as refusal:
        raise _wrong(f"each {refusal}") from refusal


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProjectSection(_Section):
    """`project`."""

    name: Annotated[str, AfterValidator(_project_name)] | None = Field(
        default=None, description="The project's name in lists, labels and networks. Default: the directory's name."
    )


class Container(_Section):
    """`container`: the instance's container."""

    environment: Annotated[dict[str, str], BeforeValidator(_environment)] = Field(
        default_factory=dict, description="Variables set for every process in the instance."
    )
    memory: Annotated[int, BeforeValidator(_memory)] | None = Field(
        default=None, description="The most memory it may use, e.g. '4g'. Default: 8g."
    )
    cpus: Annotated[float, Field(gt=0, le=1024)] | None = Field(
        default=None, description="The most processors it may use, e.g. 1.5. Default: no limit of its own."
    )
    pids: Annotated[int, Field(ge=16)] | None = Field(
        default=None, description="The most processes and threads it may have. Default: 4096."
    )


class Gate(_Section):
    """`gate`: where the firewall finds addresses and names for this project's instances.

    The prefix of bridge interfaces is not here: one gate serves all projects of a Docker host, and locks one prefix.
    """

    pool: Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_networks)] | None = Field(
        default=None, description="Where instances' networks are cut from. Default: 10.213.0.0/16 and fd5c:ace0::/48."
    )
    upstream: Annotated[tuple[str, ...], BeforeValidator(_upstreams)] | None = Field(
        default=None, description="The resolvers that allowed names are looked up with. Default: the host's."
    )


class Document(_Section):
    """The whole file but `firewall`, which `netpolicy.policy` reads."""

    project: ProjectSection = ProjectSection()
    container: Container = Container()
    gate: Gate = Gate()
