"""Prove the policy in force: try what it blocks and what it allows, from inside and, as a control, from this machine.

  netpolicy verify shop_default
  netpolicy verify shop_default --from 4711           from where that process is

Inside is a throw-away neighbour on the bridge, with an address that nobody has; for --output, the namespace itself. The targets
are those of the policy (verify), or of --policy. Nothing is changed; the result is shown by 'netpolicy status' too.

Exit status 0: it holds (what could not be proven is said); 1: with --strict, not everything is proven; 3: nothing can be plugged in
there (no bridge, no --from), or the policy blocks nothing (it is observed or off); 5: something that the policy blocks was reached.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from netpolicy.cli import operating
from netpolicy.operate import applying, gates, selecting, words
from netpolicy.operate.selecting import Held
from netpolicy.probe.verification import Plan


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("id", metavar="ID", nargs="?", help="the attachment's id, name, interface or Docker network")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="take the targets from this policy's verify")
    operating.proof_options(parser)
    operating.gate_options(parser)


def run(args: argparse.Namespace) -> int:
    """Verify one attachment."""
    seconds = operating.seconds(args)
    held = selecting.one(selecting.look(operating.home_of(args), start=True).held, args.id)
    within = operating.within(args)
    settings = _settings(args.policy, held)
    with gates.talk(held.home, start=False) as gate:
        operating.note(f"trying connections from inside {held.state.attachment.name}")
        done = applying.verify(gate, held.state, settings, replace(held.way(), seconds=seconds, within=within))
    if done.breached:
        raise operating.breach([done], locked=False)
    if args.json:
        operating.answer(done.to_json())
    else:
        operating.say(words.outcome(done, "verified"))
    return operating.judged([done], strict=args.strict)


def _settings(path: Path | None, held: Held) -> Plan:
    if path is not None:
        from netpolicy.policy import load

        verify = load(path).verify
        return Plan(verify.blocked, verify.allowed)
    if held.note is not None:
        return Plan(held.note.blocked, held.note.allowed)
    from netpolicy.policy.model import Verify

    return Plan(Verify().blocked, Verify().allowed)
