"""Put a network that exists behind the firewall: lock it, apply a policy, prove it.

  netpolicy attach --docker-network shop_default policy.json
  netpolicy attach --compose shop policy.json           every network of a compose project
  netpolicy attach --bridge br-abc123 policy.json
  netpolicy attach --output --netns build policy.json   the programs of a network namespace

Needs root. A gate is started in the background where none answers. What is attached already keeps its id and gets the policy anew,
without being locked in between; else connections that exist are cut. docs/attach.md says what this stops and what it does not.

Exit status 0: in force (what could not be proven is said); 1: with --strict, not everything is proven; 5: something that the
policy blocks was reached, and the network is locked again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from netpolicy.cli import operating
from netpolicy.errors import Exit, UserError
from netpolicy.gate.client import GateClient
from netpolicy.gate.protocol import State
from netpolicy.kernel.backends import BACKENDS
from netpolicy.operate import applying, attachable, docker, gates, homes, words
from netpolicy.operate.applying import Outcome, Wanted, Way
from netpolicy.operate.attachable import Candidate
from netpolicy.operate.homes import Home


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--bridge", metavar="NAME", help="a bridge, such as that of a Docker network")
    what.add_argument("--interface", metavar="NAME", help="any interface with workloads behind it")
    what.add_argument("--docker-network", metavar="NAME", help="a Docker network, by name or id")
    what.add_argument("--compose", metavar="PROJECT", help="every network of a compose project")
    what.add_argument("--output", action="store_true", help="the programs of a network namespace (with --netns)")
    parser.add_argument("--netns", metavar="NS", help="for --output: a name, the id of a process in it, or a path")
    parser.add_argument("--name", help="what to call it; by default as the network or the interface")
    operating.policy_options(parser)
    parser.add_argument("--no-verify", action="store_true", help="try no connections")
    operating.proof_options(parser)
    parser.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="what a gate that is started filters with (%(default)s)"
    )
    operating.gate_options(parser)


def run(args: argparse.Namespace) -> int:
    """Attach everything that is meant."""
    seconds = operating.seconds(args)
    wanted = operating.wanted(args)
    found = _found(args)
    within = operating.within(args)
    home = operating.home_of(args)
    if args.output:
        (only,) = found
        assert only.candidate.inode is not None
        assert only.candidate.namespace is not None
        home = homes.of_namespace(home, only.candidate.inode, only.candidate.namespace)
    with gates.talk(home, start=True, backend=args.backend) as gate:
        gate_backend = gate.handshake().backend
        work = _Work(home, gate, wanted, _ready(gate, found))
        work.enforce()
        outcomes = [work.prove(one, seconds=None if args.no_verify else seconds, within=within) for one in work.found]
        for done in outcomes:
            if done.breached:
                gate.attach(done.state.attachment)
    if any(done.breached for done in outcomes):
        raise operating.breach(outcomes, locked=True)
    for text in _without_effect(args, gate_backend, outcomes):
        operating.note(text)
    if args.json:
        operating.answer({"attachments": [done.to_json() for done in outcomes]})
    else:
        for done in outcomes:
            operating.say(words.outcome(done, "attached"))
        operating.say(words.following(outcomes))
    return operating.judged(outcomes, strict=args.strict)


def _without_effect(args: argparse.Namespace, backend: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What was asked for and is not so, because it was there already."""
    if backend and args.backend not in ("auto", backend):
        yield f"the gate that runs here filters with {backend}; --backend is for one that is started"
    for done in outcomes:
        attachment = done.state.attachment
        if args.name not in (None, attachment.name):
            yield f"{attachment.id} keeps the name {attachment.name}; detach it first to give it another"


@dataclass(slots=True)
class _Found:
    """One thing to attach."""

    candidate: Candidate
    network: docker.Network | None = None

    @property
    def way(self) -> Way:
        """How to get behind it."""
        return Way(namespace=self.candidate.namespace, network=self.network)


def _found(args: argparse.Namespace) -> list[_Found]:
    """What the command line means. Raises UserError."""
    if args.netns is not None and not args.output:
        raise _usage("--netns goes with --output")
    if args.output:
        if args.netns is None:
            raise _usage("--output needs --netns: the namespace whose programs are meant")
        return [_Found(attachable.of_namespace(args.netns, name=args.name))]
    if args.compose is not None:
        networks = docker.project(args.compose)
        if args.name is not None and len(networks) > 1:
            raise _usage(f"--name is for one network, and {args.compose} has {len(networks)}")
    elif args.docker_network is not None:
        networks = [docker.network(args.docker_network)]
    else:
        interface = args.bridge or args.interface
        candidate = attachable.of_interface(interface, name=args.name)
        if args.bridge and not candidate.bridge:
            raise UserError(
                "not-a-bridge",
                f"{interface} is no bridge",
                hint=f"Other interfaces: --interface {interface}.",
                exit_status=Exit.BAD_INPUT,
            )
        network = docker.of_bridge(interface) if candidate.bridge else None
        if network is None:
            return [_Found(candidate)]
        networks = [network]
    return [_Found(attachable.of_interface(n.interface, name=args.name or n.name, network=n.name), n) for n in networks]


def _ready(gate: GateClient, found: list[_Found]) -> list[_Found]:
    """The same with ids that are free, or that they have already. Raises UserError where the gate does not take them."""
    hello = gate.handshake()
    taken = {state.attachment.id: state.attachment.interface for state in gate.status().attachments}
    for one in found:
        one.candidate = attachable.named(one.candidate, taken)
        attachment = one.candidate.attachment
        taken[attachment.id] = attachment.interface
        if hello.prefix is not None and not attachment.interface.startswith(hello.prefix):
            raise UserError(
                "gate-prefix",
                f"the gate that answers takes only interfaces named {hello.prefix}*, not {attachment.interface}",
                hint="Name a socket of your own, and a gate is started there: --socket /run/netpolicy/attach.sock",
                exit_status=Exit.CONFLICT,
            )
    return found


@dataclass(slots=True)
class _Work:
    """One gate, one policy, everything that is to be attached."""

    home: Home
    gate: GateClient
    wanted: Wanted
    found: list[_Found]
    states: dict[str, State] = field(default_factory=dict)

    def enforce(self) -> None:
        """Lock all of it before any of it is opened, then apply."""
        with self._left_locked() as locked:
            for one in self.found:
                attachment = one.candidate.attachment
                if applying.lock(self.gate, attachment):
                    locked.append(attachment.name)
                    operating.note(f"locked {attachment.name}")
            for one in self.found:
                attachment = one.candidate.attachment
                operating.note(f"applying {self.wanted.policy.source} to {attachment.name}")
                self.states[attachment.id] = applying.apply(self.gate, attachment.id, self.wanted)
                if attachment.name in locked:
                    locked.remove(attachment.name)
                applying.remember(self.home, attachment.id, self.wanted, one.way)

    def prove(self, one: _Found, *, seconds: float | None, within: str | None) -> Outcome:
        """Verify one of them; with no seconds for it, do not."""
        state, way = self.states[one.candidate.attachment.id], one.way
        if seconds is None:
            return Outcome(state, None, "as asked", way.network_name)
        operating.note(f"trying connections from inside {state.attachment.name}")
        return applying.attempt(self.gate, state, self.wanted.settings, replace(way, seconds=seconds, within=within))

    @contextmanager
    def _left_locked(self) -> Iterator[list[str]]:
        locked: list[str] = []
        try:
            yield locked
        finally:
            for name in locked:
                operating.note(f"{name} is locked: nothing passes there. Attach it again, or detach it.")


def _usage(message: str) -> UserError:
    return UserError("usage", f"netpolicy attach: {message}", exit_status=Exit.BAD_INPUT)
