"""How learned addresses, refusals, flows and verdicts are written as JSON on the control socket."""

from __future__ import annotations

from dataclasses import asdict
from ipaddress import ip_address
from typing import Any

from netpolicy.attachment import Refusal
from netpolicy.flow import Flow, Identity, Layer, Origin, Verdict
from netpolicy.ruleset import Learned
from netpolicy.services import Service

Json = dict[str, Any]


def learned_to_json(entry: Learned) -> Json:
    """The wire form of a learned address."""
    services = [[s.protocol, s.first, s.last] for s in entry.services]
    return {"name": entry.name, "address": str(entry.address), "services": services, "seconds": entry.seconds}


def learned_from_json(document: Json) -> Learned:
    """Read `learned_to_json`'s form. Raises KeyError, TypeError or ValueError on a malformed document."""
    return Learned(
        name=str(document["name"]),
        address=ip_address(document["address"]),
        services=tuple(Service(*row) for row in document["services"]),
        seconds=float(document["seconds"]),
    )


def refusal_to_json(refusal: Refusal) -> Json:
    """The wire form of a refused destination."""
    return {**asdict(refusal), "address": str(refusal.address)}


def refusal_from_json(document: Json) -> Refusal:
    """Read `refusal_to_json`'s form. Raises KeyError, TypeError or ValueError on a malformed document."""
    numbers = (int(document[key]) for key in ("protocol", "port", "packets"))
    return Refusal(ip_address(document["address"]), *numbers)


def flow_to_json(flow: Flow) -> Json:
    """The wire form of a flow."""
    address = None if flow.address is None else str(flow.address)
    return {"protocol": flow.protocol, "port": flow.port, "name": flow.name, "address": address}


def flow_from_json(document: Json) -> Flow:
    """Read `flow_to_json`'s form; absent keys are None. Raises KeyError, TypeError or ValueError on a malformed document."""
    name, address, port = document.get("name"), document.get("address"), document.get("port")
    if (name is None) == (address is None):
        raise ValueError("a flow has either a name or an address")
    return Flow(
        protocol=int(document["protocol"]),
        port=None if port is None else int(port),
        name=None if name is None else str(name),
        address=None if address is None else ip_address(address),
    )


def verdict_to_json(verdict: Verdict) -> Json:
    """The wire form of a verdict."""
    return asdict(verdict)


def verdict_from_json(document: Json) -> Verdict:
    """Read `verdict_to_json`'s form. Raises KeyError, TypeError or ValueError on a malformed document."""
    rule = document["rule"]
    return Verdict(
        allowed=bool(document["allowed"]),
        layer=Layer(document["layer"]),
        rule=None if rule is None else Origin(**rule),
        identity=Identity(document["identity"]),
        explanation=str(document["explanation"]),
        suggestion=document["suggestion"],
    )
