"""Proof that an attachment's firewall does what its policy says: the same probes from inside it and from this machine.

A blocked name is not even answered inside, which says nothing of the packet filter. So where the control reached it, its
addresses (one of each family that the inside has) are tried as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from netpolicy import command, probe
from netpolicy.attachment import Attachment
from netpolicy.clock import SystemClock
from netpolicy.decide import decide
from netpolicy.errors import Exit, UserError
from netpolicy.flow import Address, Flow
from netpolicy.operate import attachable, resolvconf
from netpolicy.operate.plug import plugged
from netpolicy.probe import ProbeResult, VerificationReport
from netpolicy.probe.resolving import Unresolved, resolve
from netpolicy.probe.verification import Plan, Settings
from netpolicy.ruleset import Ruleset

#: Beyond the probes' own deadline: starting the program.
_GRACE_SECONDS = 20.0

Results = dict[str, ProbeResult]


@dataclass(frozen=True, slots=True)
class Inside:
    """A place behind the firewall from which connections can be tried."""

    namespace: str
    """Opens it."""
    resolvers: tuple[str, ...]
    """What a program there asks for names."""
    families: frozenset[int] = frozenset((4, 6))
    """The IP versions it has a way for."""

    def probe(self, targets: list[str], seconds: float) -> Results:
        """Try them all at once. Raises UserError where the program cannot be run there."""
        own = [*probe.command("netpolicy.operate.inside:main"), self.namespace, ",".join(self.resolvers)]
        done = command.run([*own, "--seconds", f"{seconds:g}", *targets], seconds=seconds + _GRACE_SECONDS, ok=(0, 1))
        return {result.target: result for result in probe.results(done.text)}


@contextlib.contextmanager
def inside(
    attachment: Attachment, *, namespace: str | None, within: str | None, taken: Collection[Address] = ()
) -> Iterator[Inside]:
    """A place to probe from.

    Args:
        attachment: What is to be proven.
        namespace: What opens the confined namespace, at the output hook.
        within: A namespace behind the firewall that the user names (a name, a process id or a path); None: make one.
        taken: Addresses on the network that somebody holds.

    Raises:
        UserError: ``cannot-verify``: nothing can be put behind this interface; as `plug` and `attachable`.
    """
    if within is not None:
        yield Inside(attachable.namespace_path(within), _resolvers(within, attachment))
    elif attachment.hook == "output":
        if not namespace:
            raise UserError(
                "cannot-verify",
                f"it is not known any more which namespace {attachment.name} is",
                hint="Name it, or a process in it: --from NAME or --from PID.",
                exit_status=Exit.MISSING,
            )
        # Whatever is asked there is redirected to the gate; the loopback always exists.
        yield Inside(namespace, ("127.0.0.1",))
    elif not attachable.is_bridge(attachment.interface):
        raise UserError(
            "cannot-verify",
            f"{attachment.interface} is no bridge, so nothing can be plugged in to try connections from inside",
            hint="Name a process that is behind it: --from PID.",
            exit_status=Exit.MISSING,
        )
    else:
        with plugged(attachment, taken=taken) as neighbour:
            families = frozenset(address.version for address in neighbour.addresses)
            yield Inside(neighbour.namespace, tuple(str(gateway) for gateway in attachment.gateways), families)


def prove(
    place: Inside, ruleset: Ruleset, settings: Settings, permits: Callable[[Flow], bool], *, seconds: float = 5.0
) -> VerificationReport:
    """Probe and judge. Changes nothing.

    Args:
        place: Behind the firewall.
        ruleset: What is in force; targets that it contradicts are left out and named in the report.
        settings: The targets.
        permits: Whether the gate lets a flow pass now, by what it has learned as well (an address can serve several names).
        seconds: For each round of probes.

    Raises:
        UserError: ``bad-verify`` for a target that cannot be read; as the program when it cannot be run.
    """
    try:
        plan = probe.plan(settings, lambda flow: decide(ruleset, flow).allowed)
    except ValueError as error:
        raise UserError("bad-verify", f"verify: {error}", exit_status=Exit.BAD_INPUT) from error
    report = _round(place, plan, permits, seconds)
    if any(proof.state == "failed" for proof in report.allowed) and report.state != "breached":
        # What the host reaches and the inside does not is either our fault or a moment's; a moment does not last.
        report = _round(place, plan, permits, seconds)
    return report


def _round(place: Inside, plan: Plan, permits: Callable[[Flow], bool], seconds: float) -> VerificationReport:
    if not plan.targets:
        return probe.judge(plan, {}, {})
    with ThreadPoolExecutor(1) as pool:
        control = pool.submit(lambda: {r.target: r for r in probe.probe_all(plan.targets, seconds)})
        found_inside = place.probe(plan.targets, seconds)
        found_control = control.result()
    closed = [text for text in _literals(plan, found_control, place, seconds) if not permits(probe.flow_of(text))]
    if closed:
        found_inside |= place.probe(closed, seconds)
        found_control |= {r.target: r for r in probe.probe_all(closed, seconds)}
        plan = replace(plan, blocked=(*plan.blocked, *closed))
    return probe.judge(plan, found_control, found_inside)


def _literals(plan: Plan, control: Results, place: Inside, seconds: float) -> Iterator[str]:
    """Blocked names that this machine reaches again, by an address that the inside would have a way to."""
    for target in plan.blocked:
        result, wanted = control.get(target), probe.parse(target)
        if result is None or not result.reached or result.address in (None, wanted.host):
            continue
        for address in _addresses(wanted.host, str(result.address), place.families, seconds):
            port = "" if wanted.protocol == "icmp" else f":{wanted.port}"
            host = f"[{address}]" if ":" in address else address
            yield f"{host}{port}/{wanted.protocol}"


def _addresses(host: str, reached: str, families: frozenset[int], seconds: float) -> Iterator[str]:
    """The first address of each of the families, as this machine resolves the name; the one that was reached comes first."""
    found = [reached]
    with contextlib.suppress(Unresolved):
        found += resolve(host, SystemClock().monotonic() + seconds)
    wanted = set(families)
    for address in found:
        version = ip_address(address).version
        if version in wanted:
            wanted.remove(version)
            yield address


def _resolvers(within: str, attachment: Attachment) -> tuple[str, ...]:
    """What a process asks for names, by its own resolv.conf; where no process is named, this machine's.

    A resolver on this machine's loopback is none in another namespace: there it is the gate, as for any other address.
    """
    if within.isdecimal():
        return resolvconf.nameservers(int(within))
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        lines = []
    servers = tuple(words[1] for words in map(str.split, lines) if len(words) > 1 and words[0] == "nameserver")
    if not all(server.startswith("127.") or server == "::1" for server in servers):
        return servers
    return tuple(map(str, attachment.gateways)) or ("127.0.0.1",)
