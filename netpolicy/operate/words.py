"""Attachments in words: what attach and apply have done, and what status finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from netpolicy.flow import protocol_name
from netpolicy.gate.protocol import Shown, State
from netpolicy.operate import resolvers
from netpolicy.operate.applying import Outcome
from netpolicy.operate.selecting import Held, Machine
from netpolicy.probe import ProbeResult, VerificationReport
from netpolicy.probe.verification import Proof

#: Of refused destinations and names, the most frequent.
_TOP = 10

Row = tuple[str, str]


def outcome(done: Outcome, verb: str) -> list[str]:
    """What was done to one attachment, line by line."""
    state = done.state
    rows = [(verb, where(state, done.network)), ("firewall", firewall(state))]
    if state.attachment.networks:
        rows.append(("network", ", ".join(map(str, state.attachment.networks))))
    rows += _proven(done.report)
    verdict = done.verdict if done.report is not None else f"not verified: {done.unverified}"
    rows.append(("state", verdict))
    rows += [("", reason) for reason in done.report.reasons] if done.report else []
    rows += _many("unresolved", _short(state.unresolved))
    rows += _many("warning", state.warnings)
    return fields(rows)


def following(done: Sequence[Outcome]) -> list[str]:
    """The commands that make sense now."""
    attachment = done[0].state.attachment
    first = attachment.id if " " in attachment.name else attachment.name
    rows = [
        (f"  netpolicy status {first}", "what it is refused"),
        (f"  netpolicy apply FILE --to {first} --confirm 30s", "another policy, with a way back"),
        (f"  netpolicy detach {first}", "take the firewall away"),
    ]
    return ["", "next", *fields(rows)]


def where(state: State, network: str | None) -> str:
    """Which attachment, and what it is."""
    attachment = state.attachment
    place = attachment.interface or attachment.name
    docker = f" (Docker network {network})" if network else ""
    return f"{attachment.id}: {place}{docker}"


def firewall(state: State) -> str:
    """The phase in a few words."""
    match state.phase:
        case "locked":
            return "locked: nothing passes"
        case "off":
            return f"OFF: everything may leave ({state.policy})"
        case "observed":
            return f"observed only, nothing is refused: {_size(state)} ({state.policy})"
        case "enforced":
            return f"enforced, {_size(state)} ({state.policy})"


def listed(machine: Machine) -> list[str]:
    """One row an attachment."""
    head = ("ID", "NAME", "INTERFACE", "FIREWALL", "REFUSED", "VERIFIED")
    rows = [
        (
            held.id,
            held.state.attachment.name,
            held.state.attachment.interface or "-",
            firewall(held.state),
            str(held.state.refused),
            verified(held.state),
        )
        for held in machine.held
    ]
    notes = [f"{held.id}: {text}" for held in machine.held for text in remarks(held.state)]
    return [*(_columns([head, *rows]) if rows else ["nothing is attached"]), *notes, *machine.problems]


def shown(held: Held, found: Shown, moment: float) -> list[str]:
    """One attachment in full.

    Args:
        held: The attachment.
        found: What the gate shows of it.
        moment: Now, in seconds since 1970.
    """
    state, attachment = found.state, found.state.attachment
    rows = [
        ("attached", where(state, held.note.network if held.note else None)),
        ("name", attachment.name),
        ("firewall", firewall(state)),
        *([("ruleset", state.ruleset)] if state.ruleset else []),
        *([("applied", _time(state.applied_at))] if state.applied_at else []),
        ("network", ", ".join(map(str, attachment.networks)) or "-"),
        ("host", ", ".join(map(str, attachment.gateways)) or "-"),
        ("backend", held.gate.backend or "unknown"),
        (
            "names",
            f"{state.dns.answered} answered, {state.dns.denied} refused; {_count(state.learned, 'address', 'addresses')} learned",
        ),
        ("refused", _count(state.refused, "packet", "packets")),
    ]
    rows += [
        ("", f"{seen.packets:>6}  {_destination(seen.address, seen.protocol, seen.port)}")
        for seen in found.refusals[:_TOP]
    ]
    rows += [("", text) for text in _names(found.denied)]
    rows += _many("would be refused", _names(found.observed))
    report = _report(state)
    rows += _proven(report)
    rows.append(("proof", verified(state)))
    rows += [("", reason) for reason in report.reasons] if report else []
    if state.confirm_by is not None:
        left = max(0.0, state.confirm_by - moment)
        rows.append(("unconfirmed", f"back to what was before in {left:.0f} s, unless 'netpolicy confirm {held.id}'"))
    if state.ends_at is not None:
        rows.append(("next end", f"a rule ends at {_time(state.ends_at)}"))
    if state.drift is not None:
        last = f"{state.drift.last} ({state.drift.action})"
        rows.append(("drift", f"{state.drift.times} times, last {_time(state.drift.at)}: {last}"))
    rows += _many("unresolved", _short(state.unresolved))
    rows += _many("warning", state.warnings)
    return fields(rows)


def remarks(state: State) -> list[str]:
    """What else one should know, in a list of attachments."""
    found = [] if state.confirm_by is None else ["waits to be confirmed"]
    if state.drift is not None:
        found.append(f"another program changed the rules: {state.drift.last} ({state.drift.action})")
    return [*found, *state.warnings]


def verified(state: State) -> str:
    """What the last verification said."""
    report = _report(state)
    return "no" if report is None else report.state


def fields(rows: Iterable[Row]) -> list[str]:
    """Labels and values below each other; an empty label continues the one above."""
    table = list(rows)
    width = max((len(label) for label, _ in table), default=0)
    return [f"{label:<{width}}  {_plain(value)}".rstrip() for label, value in table]


def _proven(report: VerificationReport | None) -> list[Row]:
    if report is None:
        return []
    return [
        *_many("blocked", [_tried(proof) for proof in report.blocked]),
        *_many("reachable", [_tried(proof) for proof in report.allowed]),
        *_many("skipped", list(report.skipped)),
    ]


def _tried(proof: Proof) -> str:
    mark = {"proven": "", "unproven": " (not proven)", "failed": " (WRONG)"}[proof.state]
    return f"{proof.target}  {_happened(proof.inside)}{mark}"


def _happened(result: ProbeResult | None) -> str:
    return "not tried" if result is None else f"{result.outcome} in {result.milliseconds:.0f} ms"


def _report(state: State) -> VerificationReport | None:
    try:
        return None if state.verification is None else VerificationReport.from_json(state.verification)
    except (KeyError, TypeError):
        return None


def _size(state: State) -> str:
    return ", ".join(
        f"{count} {what}{'' if count == 1 else 's'}"
        for count, what in ((state.names, "name"), (state.ranges, "range"))
        if count or what == "name"
    )


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _destination(address: object, protocol: int, port: int) -> str:
    host = f"[{address}]" if port and ":" in str(address) else str(address)
    return f"{host}:{port}/{protocol_name(protocol)}" if port else f"{host}/{protocol_name(protocol)}"


def _names(names: Mapping[str, int]) -> list[str]:
    """The most frequent, without those that we asked for ourselves."""
    rows = [(name, times) for name, times in names.items() if not resolvers.ours(name)]
    return [f"{times:>6}  {name} (name)" for name, times in rows[:_TOP]]


def _many(label: str, values: Sequence[str]) -> list[Row]:
    return [(label if index == 0 else "", value) for index, value in enumerate(values)]


def _short(names: Sequence[str]) -> list[str]:
    more = len(names) - _TOP
    return [*names[:_TOP], *([f"and {more} more"] if more > 0 else [])]


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(_plain(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    ]


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().isoformat(sep=" ", timespec="seconds")


def _plain(text: str) -> str:
    """Without characters that a terminal would act on."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
