"""Phases from facts. The container runs and the gate vouches for the rules in force, or it is not ready."""

from __future__ import annotations

import itertools
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from netpolicy.attachment import Attachment
from netpolicy.gate.protocol import DnsState, Drift, State
from sidecars.engine import ContainerInfo, VolumeInfo
from sidecars.engine.spec import Address
from sidecars.instance.assess import FIREWALL_OFF, OLDER, ONLY_OBSERVED, Facts, assess
from sidecars.instance.model import Phase
from sidecars.instance.objects import Objects
from sidecars.journal import Entry, Key
from sidecars.networks import InstanceNetwork

SUBNETS = (ip_network("10.213.0.0/28"),)
NETWORK = InstanceNetwork("n", "cspace-shop-mercury", "csp-1", SUBNETS, (ip_address("10.213.0.1"),), {})
ATTACHMENT = Attachment("1", "shop/mercury", "csp-1", SUBNETS, (ip_address("10.213.0.1"),))
VOLUME = VolumeInfo("v", {"cspace.role": "workspace"}, None)
VERIFIED = {"state": "verified", "reasons": []}


def container(state: str = "running") -> ContainerInfo:
    empty: dict[str, Any] = dict.fromkeys(ContainerInfo.__dataclass_fields__, "")
    numbers = {"exit_code": None, "pid": 1, "restarts": 0, "created": None, "started": None}
    return ContainerInfo(
        **{
            **empty,
            **numbers,
            "labels": {"cspace.role": "dev"},
            "state": state,
            "addresses": (),
            "ports": (),
            "mounts": (),
        }
    )


def state(**changes: Any) -> State:
    whole = State(
        ATTACHMENT, "enforced", "test", "r1", 1, 0, 0, (), (), 0, DnsState(5353, True), VERIFIED, 1.0
    )  # fmt: skip
    return replace(whole, **changes)


WHOLE = Objects(NETWORK, (container(),), (VOLUME,))
READY = Facts(WHOLE, state())


def entry(phase: str, *reasons: str) -> Entry:
    return Entry(Key("e", "shop", "mercury"), phase, reasons, 1.0)


def test_it_is_ready_when_it_runs_and_the_rules_in_force_were_verified() -> None:
    assert assess(READY) == (Phase.READY, ())


@pytest.mark.requirement("F11")
@pytest.mark.parametrize(
    ("facts", "phase", "words"),
    [
        (replace(READY, state=state(verification=None)), Phase.DEGRADED, "have not been verified"),
        (replace(READY, state=None, gate="the gate does not run"), Phase.DEGRADED, "the gate does not run"),
        (replace(READY, state=None), Phase.DEGRADED, "the gate does not know its network"),
        (replace(READY, state=state(phase="locked", ruleset=None)), Phase.LOCKED, "nothing passes"),
        (replace(READY, state=state(warnings=("a list is old",))), Phase.DEGRADED, "a list is old"),
        (replace(READY, state=state(unresolved=("a.example",))), Phase.DEGRADED, "1 allowed name does not resolve"),
        (
            replace(READY, state=state(verification={"state": "degraded", "reasons": ["offline"]})),
            Phase.DEGRADED,
            "offline",
        ),
        (
            replace(READY, state=state(verification={"state": "breached", "reasons": ["a hole"]})),
            Phase.FAILED,
            "a hole",
        ),
        (replace(READY, objects=replace(WHOLE, containers=(container("exited"),))), Phase.STOPPED, "does not run"),
        (replace(READY, objects=replace(WHOLE, containers=())), Phase.FAILED, "it has no container"),
        (replace(READY, objects=Objects(volumes=(VOLUME,))), Phase.FAILED, "it has no network and container"),
        (
            replace(READY, state=state(attachment=replace(ATTACHMENT, networks=(ip_network("10.9.0.0/28"),)))),
            Phase.DEGRADED,
            "does not know its network",
        ),
    ],
)
def test_whatever_is_missing_it_is_not_ready_and_says_why(facts: Facts, phase: Phase, words: str) -> None:
    found, reasons = assess(facts)
    assert found is phase
    assert words in reasons[0]


@pytest.mark.requirement("F11")
def test_no_record_makes_ready_what_cannot_be_seen_to_be() -> None:
    """Every combination of facts under the record "ready": only one of them is."""
    containers = [(), (container("exited"),), (container(),)]
    states = [None, state(verification=None), state(phase="locked"), state()]
    ready = [
        (own, said)
        for own, said in itertools.product(containers, states)
        if assess(Facts(replace(WHOLE, containers=own), said, entry=entry("ready")))[0] is Phase.READY
    ]
    assert ready == [(containers[-1], states[-1])]


@pytest.mark.requirement("F7")
def test_a_firewall_that_is_off_is_always_said() -> None:
    assert assess(replace(READY, state=state(phase="off", verification=None))) == (Phase.READY, (FIREWALL_OFF,))


@pytest.mark.requirement("F7")
def test_a_firewall_that_only_observes_is_always_said() -> None:
    facts = replace(READY, state=state(phase="observed", verification=None))
    assert assess(facts) == (Phase.READY, (ONLY_OBSERVED,))


@pytest.mark.parametrize(
    ("action", "changes", "phase", "words"),
    [
        ("repaired", {}, Phase.READY, "has put them right"),
        ("locked", {"phase": "locked", "ruleset": None, "verification": None}, Phase.LOCKED, "has locked the instance"),
        ("failed", {}, Phase.DEGRADED, "could not put them right yet"),
        ("repaired", {"phase": "off"}, Phase.READY, "has put them right"),
        ("repaired", {"phase": "observed"}, Phase.READY, "has put them right"),
        ("repaired", {"verification": None}, Phase.DEGRADED, "has put them right"),
    ],
)
def test_what_another_program_did_to_the_rules_is_said(
    action: Any, changes: dict[str, Any], phase: Phase, words: str
) -> None:
    event = Drift(2, "the chain out_1 was emptied", 1.0, action)
    found, reasons = assess(replace(READY, state=state(drift=event, **changes)))
    assert found is phase
    (said,) = [reason for reason in reasons if "another program" in reason]
    assert "2 times, the last time: the chain out_1 was emptied" in said
    assert words in said


def test_a_network_beside_its_own_is_past_the_firewall() -> None:
    joined = tuple(Address(name, "10.0.0.2", None, None) for name in (NETWORK.name, "bridge"))
    facts = replace(READY, objects=replace(WHOLE, containers=(replace(container(), addresses=joined),)))
    phase, (reason,) = assess(facts)
    assert phase is Phase.FAILED
    assert "bridge, which is outside of its firewall" in reason


def test_an_older_image_is_remembered_while_nothing_else_says_it() -> None:
    facts = replace(READY, entry=entry("degraded", f"{OLDER}it is old", "something that has passed"))
    assert assess(facts) == (Phase.DEGRADED, (f"{OLDER}it is old",))


def test_a_phase_that_is_under_way_is_told_only_while_somebody_is_at_it() -> None:
    busy = replace(READY, entry=entry("verifying"), holder="process 7")
    assert assess(busy) == (Phase.VERIFYING, ("process 7 is working on it",))
    assert assess(replace(busy, holder=None)) == (Phase.READY, ())
    assert assess(replace(busy, entry=entry("ready"))) == (Phase.READY, ())


def test_why_it_failed_is_remembered_while_it_does_not_run() -> None:
    stopped = replace(READY, objects=replace(WHOLE, containers=(container("exited"),)), entry=entry("failed", "a hole"))
    assert assess(stopped) == (Phase.FAILED, ("a hole",))


def test_a_removal_that_was_cut_off_says_how_to_finish_it() -> None:
    _, reasons = assess(Facts(Objects(volumes=(VOLUME,)), entry=entry("stopping")))
    assert reasons == ("its removal was interrupted; 'cspace down NAME' finishes it",)


def test_many_unresolved_names_are_counted_and_a_few_named() -> None:
    _, reasons = assess(replace(READY, state=state(unresolved=tuple(f"n{i}.example" for i in range(9)))))
    assert reasons[0].startswith("9 allowed names do not resolve now")
    assert reasons[0].endswith("n4.example and 4 more")
