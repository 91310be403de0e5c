"""Keep the policy that was applied with --confirm. Unless this comes in time, the gate goes back to what was before.

  netpolicy confirm shop_default

Exit status 0: it stays; 4: nothing waits to be confirmed there (any more).
"""

from __future__ import annotations

import argparse

from netpolicy.cli import operating
from netpolicy.errors import Exit
from netpolicy.operate import gates, selecting, words


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("id", metavar="ID", nargs="?", help="the attachment's id, name, interface or Docker network")
    operating.gate_options(parser)


def run(args: argparse.Namespace) -> int:
    """Confirm."""
    held = selecting.one(selecting.look(operating.home_of(args), start=False).held, args.id)
    with gates.talk(held.home, start=False) as gate:
        state = gate.confirm(held.id)
    if args.json:
        operating.answer({**state.to_json(), "id": held.id})
    else:
        operating.say([f"{held.id} keeps its policy: {words.firewall(state)}"])
    return Exit.OK
