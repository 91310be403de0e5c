"""Take the firewall away from what is attached: it is open again, as far as this machine's other rules leave it so.

  netpolicy detach shop_default
  netpolicy detach --all --yes

On a terminal it asks first. A gate that was started in the background ends when nothing is attached any more.

Exit status 0: gone; 1: you said no; 3: no such attachment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from netpolicy.cli import operating
from netpolicy.errors import Exit, UserError
from netpolicy.operate import gates, notes, selecting
from netpolicy.operate.selecting import Held


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("ids", metavar="ID", nargs="*", help="attachments, by id, name, interface or Docker network")
    parser.add_argument("--all", action="store_true", help="everything that is attached")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--keep-gate", action="store_true", help="leave the gate running when nothing is left")
    operating.gate_options(parser)


def run(args: argparse.Namespace) -> int:
    """Detach."""
    if bool(args.ids) == args.all:
        raise UserError("usage", "netpolicy detach: name what to detach, or --all", exit_status=Exit.BAD_INPUT)
    machine = selecting.look(operating.home_of(args), start=True)
    chosen = list(machine.held) if args.all else [selecting.one(machine.held, wanted) for wanted in args.ids]
    chosen = list({(held.home.socket, held.id): held for held in chosen}.values())
    if chosen and not (args.yes or _agreed(chosen)):
        return Exit.DENIED
    for held in chosen:
        with gates.talk(held.home, start=False) as gate:
            gate.detach(held.id)
        notes.drop(held.home, held.id)
    stopped = [] if args.keep_gate else [str(home.socket) for home, _ in machine.gates if gates.forget(home)]
    if args.json:
        operating.answer({"detached": [held.id for held in chosen], "stopped": stopped})
        return Exit.OK
    operating.say([] if chosen else ["nothing is attached"])
    operating.say(f"detached {held.id}: {_after(held)}" for held in chosen)
    operating.say(f"the gate at {socket} has ended: nothing is attached" for socket in stopped)
    return Exit.OK


def _after(held: Held) -> str:
    """What is true of it now."""
    attachment, prefix = held.state.attachment, held.gate.prefix
    if attachment.hook == "output":
        return f"the programs of {attachment.name} reach what the rest of the network lets them"
    if prefix is not None and attachment.interface.startswith(prefix):
        return f"{attachment.interface} is locked again, by its name"
    return (
        f"{attachment.interface} is open again: everything leaves that Docker and this machine's own rules let through"
    )


def _agreed(chosen: Sequence[Held]) -> bool:
    names = ", ".join(held.state.attachment.name for held in chosen)
    if not sys.stdin.isatty():
        raise UserError(
            "not-confirmed",
            f"this opens {names}, and there is no terminal to ask at",
            hint="Say it with --yes.",
            exit_status=Exit.BAD_INPUT,
        )
    sys.stderr.write(f"netpolicy: this opens {names}: everything may leave again. Detach? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
