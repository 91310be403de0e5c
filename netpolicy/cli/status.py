"""What is attached on this machine, how it is, and what was refused.

  netpolicy status
  netpolicy status shop_default       one attachment in full

Exit status 0; 3: no such attachment, or the gate that holds it does not run.
"""

from __future__ import annotations

import argparse

from netpolicy.cli import operating
from netpolicy.clock import SystemClock
from netpolicy.errors import Exit
from netpolicy.operate import gates, selecting, words
from netpolicy.operate.selecting import Machine


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("id", metavar="ID", nargs="?", help="the attachment's id, name, interface or Docker network")
    operating.gate_options(parser)


def run(args: argparse.Namespace) -> int:
    """Tell."""
    machine = selecting.look(operating.home_of(args), start=False)
    if args.id is None:
        operating.answer(_listed(machine)) if args.json else operating.say(words.listed(machine))
        return Exit.OK
    held = selecting.one(machine.held, args.id)
    with gates.talk(held.home, start=False) as gate:
        shown = gate.show(held.id)
    if args.json:
        operating.answer({**shown.to_json(), "id": held.id, "socket": str(held.home.socket)})
    else:
        operating.say(words.shown(held, shown, SystemClock().now()))
    return Exit.OK


def _listed(machine: Machine) -> dict[str, object]:
    return {
        "gates": [{**hello.to_json(), "socket": str(home.socket)} for home, hello in machine.gates],
        "problems": list(machine.problems),
        "attachments": [
            {
                **held.state.to_json(),
                "id": held.id,
                "socket": str(held.home.socket),
                "network": held.note.network if held.note else None,
            }
            for held in machine.held
        ],
    }
