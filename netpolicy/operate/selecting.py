"""What is attached on this machine, over all gates, and which of it a person means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netpolicy.errors import Exit, UserError
from netpolicy.gate.protocol import Hello, State
from netpolicy.operate import docker, gates, homes, notes
from netpolicy.operate.applying import Way
from netpolicy.operate.homes import Home
from netpolicy.operate.notes import Note


@dataclass(frozen=True, slots=True)
class Held:
    """One attachment, and the gate that holds it."""

    home: Home
    gate: Hello
    state: State
    note: Note | None

    @property
    def id(self) -> str:
        """The attachment's."""
        return self.state.attachment.id

    def way(self) -> Way:
        """How to get behind it; asks Docker."""
        interface = self.state.attachment.interface
        network = docker.of_bridge(interface) if interface and self.note and self.note.network else None
        return Way(namespace=self.note.namespace if self.note else None, network=network)


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything attached here."""

    held: tuple[Held, ...]
    gates: tuple[tuple[Home, Hello], ...]
    """The gates that answer."""
    problems: tuple[str, ...]
    """What is wrong with gates themselves."""


def look(main: Home, *, start: bool) -> Machine:
    """Ask the home's gate, and those of namespaces beside it.

    Args:
        main: The home that the options name.
        start: Start a gate that has something to take up again and does not answer.

    Raises:
        UserError: ``gate-unreachable`` where the home's gate has something to hold and does not answer, and others of the gate.
    """
    held: list[Held] = []
    found: list[tuple[Home, Hello]] = []
    problems: list[str] = []
    for home in homes.all_of(main):
        remembered = gates.remembers(home)
        try:
            with gates.talk(home, start=start and remembered and home.netns != "") as gate:
                status = gate.status()
        except UserError as error:
            if error.code != "gate-unreachable":
                raise
            if remembered and home == main:
                raise UserError(
                    error.code,
                    error.message,
                    hint="What it held is in force as it was left, but names are not answered: 'netpolicy verify' starts it again.",
                    exit_status=error.exit_status,
                ) from error
            if remembered and home.netns != "":
                problems.append(f"{error.message}: what it held in its namespace is as it was left")
            continue
        found.append((home, status.gate))
        problems += status.problems
        if home.netns == "":
            # The gate itself holds it open; nobody else is in there, or can get there.
            problems += (
                f"{state.attachment.id}: its namespace has gone; 'netpolicy detach {state.attachment.id}' ends its gate"
                for state in status.attachments
            )
        held += (
            Held(home, status.gate, state, notes.find(home, state.attachment.id, state.ruleset))
            for state in status.attachments
        )
    return Machine(tuple(held), tuple(found), tuple(problems))


def one(held: Sequence[Held], wanted: str | None) -> Held:
    """The attachment that is meant by an id, a name, an interface or a Docker network; the only one where nothing is said.

    Raises:
        UserError: ``not-attached``; ``which-attachment`` where several could be meant.
    """
    matching = list(held) if wanted is None else _meant(held, wanted)
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(_told(entry) for entry in held)
    if not matching:
        raise UserError(
            "not-attached",
            "nothing is attached" if wanted is None else f"nothing is attached as {wanted!r}",
            hint=f"There are: {known}."
            if known
            else "'netpolicy attach --bridge NAME policy.json' attaches a network.",
            exit_status=Exit.MISSING,
        )
    raise UserError(
        "which-attachment",
        "several networks are attached" if wanted is None else f"{wanted!r} can mean several attachments",
        hint=f"Name one of {', '.join(_told(entry) for entry in matching)}.",
        exit_status=Exit.BAD_INPUT,
    )


def _told(entry: Held) -> str:
    """Its id, and what people know it by where that is something else."""
    attachment = entry.state.attachment
    return entry.id if attachment.name in (entry.id, attachment.interface) else f"{entry.id} ({attachment.name})"


def _meant(held: Sequence[Held], wanted: str) -> list[Held]:
    """The closest reading that fits anything: an id is unique, a name need not be."""
    return (
        [entry for entry in held if entry.id == wanted]
        or [entry for entry in held if entry.state.attachment.name in (wanted, f"netns {wanted}")]
        or [entry for entry in held if entry.state.attachment.interface == wanted]
        or [entry for entry in held if entry.note is not None and entry.note.network == wanted]
    )
