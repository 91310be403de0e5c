"""Put another policy in force on what is attached, in one step, and prove it.

  netpolicy apply policy.json
  netpolicy apply policy.json --to shop_default --confirm 30s

Connections that the new policy allows go on, the others are cut. With --confirm the gate goes back to what was in force
before, unless it is confirmed in time: on a terminal by Enter, else by 'netpolicy confirm ID'. It does so by itself, whatever
becomes of this program.

Exit status 0: in force (with --confirm and no terminal: for now); 1: it was not confirmed, or with --strict not everything is
proven; 5: something that the policy blocks was reached, and the network is locked.
"""

from __future__ import annotations

import argparse
import math
import re
import select
import sys
from dataclasses import replace

from netpolicy.cli import operating
from netpolicy.clock import SystemClock
from netpolicy.errors import Exit, UserError
from netpolicy.gate.client import GateClient
from netpolicy.operate import applying, gates, selecting, words
from netpolicy.operate.applying import Outcome, Wanted
from netpolicy.operate.selecting import Held

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    operating.policy_options(parser)
    parser.add_argument("--to", metavar="ID", help="which attachment: its id, name, interface or Docker network")
    parser.add_argument(
        "--confirm", metavar="TIME", help="go back unless confirmed within so long: 30s, 5m; plain numbers are seconds"
    )
    parser.add_argument("--no-verify", action="store_true", help="try no connections")
    operating.proof_options(parser)
    operating.gate_options(parser)


def run(args: argparse.Namespace) -> int:
    """Apply, verify, and wait to be confirmed."""
    seconds = operating.seconds(args)
    confirm_seconds = None if args.confirm is None else duration(args.confirm)
    wanted = operating.wanted(args)
    held = selecting.one(selecting.look(operating.home_of(args), start=True).held, args.to)
    operating.within(args)
    with gates.talk(held.home, start=False) as gate:
        done = _applied(gate, held, wanted, args, confirm_seconds, seconds)
        if args.json:
            operating.answer(done.to_json())
        else:
            operating.say(words.outcome(done, "applied"))
        if confirm_seconds is not None:
            if args.json or not operating.interactive():
                operating.note(
                    f"unless 'netpolicy confirm {held.id}' comes within {confirm_seconds:g} s, {held.id} goes back to what it was"
                )
            elif not _confirmed(gate, held.id):
                return Exit.DENIED
    return operating.judged([done], strict=args.strict)


def duration(text: str) -> float:
    """Seconds, of ``30``, ``30s``, ``5m`` or ``1h``. Raises UserError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 1 <= seconds <= 86400:
        raise UserError(
            "usage",
            f"netpolicy apply: --confirm {text!r} is no time between a second and a day",
            hint="For example: --confirm 30s",
            exit_status=Exit.BAD_INPUT,
        )
    return seconds


def _applied(
    gate: GateClient, held: Held, wanted: Wanted, args: argparse.Namespace, confirm: float | None, seconds: float
) -> Outcome:
    name, way = held.state.attachment.name, replace(held.way(), seconds=seconds, within=args.within)
    operating.note(f"applying {wanted.policy.source} to {name}")
    state = applying.apply(gate, held.id, wanted, confirm_seconds=confirm)
    applying.remember(held.home, held.id, wanted, way)
    if args.no_verify:
        return Outcome(state, None, "as asked", way.network_name)
    operating.note(f"trying connections from inside {name}")
    done = applying.attempt(gate, state, wanted.settings, way)
    if done.breached:
        gate.attach(state.attachment)
        raise operating.breach([done], locked=True)
    return done


def _confirmed(gate: GateClient, attachment_id: str) -> bool:
    """Count down, and wait for Enter. What is not confirmed in time is undone by the gate."""
    clock = SystemClock()
    state = gate.status(attachment_id).attachments[0]
    while state.confirm_by is not None and (left := state.confirm_by - clock.now()) > 0:
        sys.stderr.write(f"\r\x1b[Knetpolicy: press Enter within {math.ceil(left)} s to keep it ")
        sys.stderr.flush()
        if select.select([sys.stdin], [], [], min(left, 1.0))[0]:
            if not sys.stdin.readline():
                break  # the terminal has gone, and nobody can say yes
            gate.confirm(attachment_id)
            operating.note("confirmed")
            return True
    sys.stderr.write("\n")
    operating.note("not confirmed: back to what was in force before")
    return False
