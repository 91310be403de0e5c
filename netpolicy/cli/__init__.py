"""The `netpolicy` program. One module a verb; see `program` for the frame."""

from __future__ import annotations

from collections.abc import Sequence

from netpolicy.cli.program import Program, Verb

PROGRAM = Program(
    name="netpolicy",
    summary="an egress firewall you can ask, run under and assert",
    version="0.1.0",
    verbs=(
        Verb("check", "netpolicy.cli.check", "say what would happen to a connection, and by which rule"),
        Verb("explain", "netpolicy.cli.explain", "show the way of a connection through the layers to its verdict"),
        Verb("compile", "netpolicy.cli.compile", "print the ruleset that a policy becomes"),
        Verb("diff", "netpolicy.cli.diff", "compare two policies by what they open"),
        Verb("presets", "netpolicy.cli.presets", "list the presets, show one, or fetch what providers publish"),
        Verb("run", "netpolicy.cli.run", "run a command behind the firewall, without Docker"),
        Verb("attach", "netpolicy.cli.attach", "firewall a network that exists: Docker's, a bridge, a namespace"),
        Verb("status", "netpolicy.cli.status", "what is attached, how it is, and what was refused"),
        Verb("apply", "netpolicy.cli.apply", "put another policy in force on what is attached"),
        Verb("confirm", "netpolicy.cli.confirm", "keep a policy that was applied with --confirm"),
        Verb("verify", "netpolicy.cli.verify", "prove the policy in force from inside"),
        Verb("detach", "netpolicy.cli.detach", "take the firewall away again"),
        Verb("gate", "netpolicy.cli.gate", "the firewall daemon: serve, relay, call"),
        Verb("probe", "netpolicy.cli.probe", "try a connection for real and report what happened"),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `netpolicy` program."""
    return PROGRAM.main(argv)
