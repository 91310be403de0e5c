"""The firewall daemon: run it, carry its protocol through a pipe, or call it once.

  netpolicy gate serve                     hold policies in force until SIGTERM; the kernel's rules outlive it
  netpolicy gate relay                     copy standard input and output to and from the gate (for 'docker exec -i')
  netpolicy gate uninstall                 take every rule of a gate that has ended out of the kernel
  netpolicy gate call status               one operation; its result is printed as JSON
  netpolicy gate call detach '{"id": "ab12"}'

Operations and their arguments: docs/gate.md.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from netpolicy.errors import Exit, UserError

_SOCKET = "/run/netpolicy/gate.sock"
_STATE = "/var/lib/netpolicy"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="serve|uninstall|relay|call")
    serve = verbs.add_parser("serve", help="run the daemon", allow_abbrev=False)
    serve.add_argument("--state", default=_STATE, metavar="DIR", help="where attachments are remembered (%(default)s)")
    serve.add_argument("--prefix", default="csp-", help="interfaces so named are locked until attached (%(default)s)")
    serve.add_argument("--no-prefix", action="store_true", help="lock no interface by its name; any may be attached")
    serve.add_argument(
        "--netns", metavar="NS", help="work in this network namespace: a name, or a path such as /proc/PID/ns/net"
    )
    serve.add_argument("--table", default="netpolicy", help="what our objects in the kernel are named (%(default)s)")
    serve.add_argument(
        "--backend",
        choices=("auto", "nftables", "ipset"),
        default="auto",
        help="what filters the packets; auto takes the first that works here (%(default)s)",
    )
    serve.add_argument(
        "--upstream",
        action="append",
        default=[],
        metavar="ADDR[:PORT]",
        help="a resolver to ask, repeatable (those of resolv.conf)",
    )
    uninstall = verbs.add_parser("uninstall", help="remove all rules of a gate that has ended", allow_abbrev=False)
    uninstall.add_argument("--table", default="netpolicy", help="as with serve (%(default)s)")
    uninstall.add_argument("--netns", metavar="NS", help="as with serve")
    uninstall.add_argument(
        "--backend", choices=("all", "nftables", "ipset"), default="all", help="whose rules (%(default)s)"
    )
    uninstall.add_argument("--yes", action="store_true", help="needed: what the rules keep closed is open then")
    uninstall.add_argument("--json", action="store_true", help="print the result as JSON, errors too")
    relay = verbs.add_parser("relay", help="carry the protocol over standard input and output", allow_abbrev=False)
    relay.add_argument(
        "--wait", type=float, default=0.0, metavar="S", help="seconds to wait for a gate that is starting"
    )
    call = verbs.add_parser("call", help="one operation", allow_abbrev=False)
    call.add_argument("operation", metavar="OP", help="e.g. status, show, check or detach")
    call.add_argument("arguments", metavar="JSON", nargs="?", default="{}", help="the operation's arguments, an object")
    call.add_argument("--json", action="store_true", help="print errors as JSON too")
    for verb in (serve, relay, call):
        verb.add_argument("--socket", default=_SOCKET, metavar="PATH", help="the control socket (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the verb; each action loads only what it needs."""
    match args.action:
        case "relay":
            from netpolicy.gate.relay import relay

            return relay(args.socket, wait=args.wait)
        case "call":
            return _call(args)
        case "uninstall":
            return _uninstall(args)
        case _:
            return _serve(args)


def _serve(args: argparse.Namespace) -> int:
    from pathlib import Path

    from netpolicy.cli import PROGRAM
    from netpolicy.gate.daemon import run as run_daemon

    if not args.prefix:
        raise UserError(
            "usage", "--prefix must not be empty: it would lock every interface", exit_status=Exit.BAD_INPUT
        )
    return run_daemon(
        control=Path(args.socket),
        state=Path(args.state),
        prefix=None if args.no_prefix else args.prefix,
        table=args.table,
        upstreams=args.upstream,
        version=PROGRAM.version,
        namespace=args.netns,
        backend=args.backend,
    )


def _uninstall(args: argparse.Namespace) -> int:
    from netpolicy.gate.daemon import claim
    from netpolicy.kernel.backends import BACKENDS, remove

    if not args.yes:
        raise UserError(
            "not-confirmed",
            f"this opens everything that the rules of {args.table} keep closed",
            hint="Say it with --yes.",
            exit_status=Exit.BAD_INPUT,
        )
    wanted = [name for name in BACKENDS if name != "auto" and args.backend in ("all", name)]
    left: dict[str, str] = {}
    with claim(args.table, args.netns):
        for name in wanted:
            try:
                remove(name, table=args.table, netns=args.netns)
            except UserError as error:
                if args.backend != "all" or error.code != "kernel-missing":
                    raise
                left[name] = error.message  # a host without it has no rules of it
    removed = [name for name in wanted if name not in left]
    if args.json:
        print(json.dumps({"table": args.table, "removed": removed, "lacking": left}))  # noqa: T201
    else:
        print(f"no rules of {args.table} are left in the kernel ({', '.join(removed)})")  # noqa: T201
    return Exit.OK


def _call(args: argparse.Namespace) -> int:
    from pathlib import Path

    from netpolicy.gate.client import GateClient, UnixTransport

    try:
        arguments: Any = json.loads(args.arguments)
    except ValueError as error:
        raise UserError("usage", f"the arguments are not JSON: {error}", exit_status=Exit.BAD_INPUT) from error
    if not isinstance(arguments, dict):
        raise UserError("usage", "the arguments are not a JSON object", exit_status=Exit.BAD_INPUT)
    client = GateClient(UnixTransport(Path(args.socket)))
    try:
        print(json.dumps(client.call(args.operation, arguments), indent=2, ensure_ascii=False))  # noqa: T201
    finally:
        client.close()
    return Exit.OK
