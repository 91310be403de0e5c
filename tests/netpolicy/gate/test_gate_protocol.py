"""What crosses the control socket reads back as it was."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest
from gatekit import attachment, rules

from netpolicy.attachment import Refusal
from netpolicy.errors import UserError
from netpolicy.flow import Flow, Identity, Layer, Origin, Verdict
from netpolicy.gate import forms, protocol
from netpolicy.gate.protocol import DnsState, Drift, Hello, Shown, State, Status
from netpolicy.ruleset import Learned
from netpolicy.services import Service

HELLO = Hello("0.1", 2, 4711, "csp-", ("192.0.2.53:53",), "nftables")
STATE = State(
    attachment=attachment(),
    phase="enforced",
    policy=".cspace.json",
    ruleset="0123456789ab",
    names=2,
    ranges=1,
    learned=3,
    unresolved=("b.example",),
    warnings=("old snapshot",),
    refused=9,
    dns=DnsState(port=5353, listening=True, answered=1, denied=2, stripped=3, failed=4, observed=5, limited=6),
    verification={"state": "verified"},
    applied_at=1_800_000_000.5,
    confirm_by=1_800_000_030.5,
    ends_at=1_800_086_400.0,
    drift=Drift(2, "the table is gone", 1_800_000_001.5, "repaired"),
    upstreams=("192.0.2.53:53",),
)
REFUSALS = (Refusal(ip_address("2001:db8::66"), 17, 443, 12), Refusal(ip_address("192.0.2.66"), 1, 0, 1))
LEARNED = Learned("a.example", ip_address("2001:db8::1"), (Service(6, 443, 443), Service(17, 1, 9)), 12.5)


@pytest.mark.parametrize(
    "value",
    [
        HELLO,
        STATE,
        Status(HELLO, 1.5, ("damaged",), (STATE,)),
        Shown(rules("a.example"), (LEARNED,), STATE, {"evil.example": 3}, {"seen.example": 4}, REFUSALS),
        Shown(None, (), STATE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_read_back_equal(value: Hello | State | Status | Shown) -> None:
    assert type(value).from_json(json.loads(json.dumps(value.to_json()))) == value


@pytest.mark.parametrize(
    "flow",
    [
        Flow(6, 443, name="a.example"),
        Flow(17, 53, address=ip_address("2001:db8::1")),
        Flow(1, address=ip_address("192.0.2.1")),
    ],
    ids=str,
)
def test_flows_read_back_equal(flow: Flow) -> None:
    assert forms.flow_from_json(json.loads(json.dumps(forms.flow_to_json(flow)))) == flow


@pytest.mark.parametrize("rule", [None, Origin("a.json", "firewall.domains[0]", "a.example", "because")])
def test_verdicts_read_back_equal(rule: Origin | None) -> None:
    verdict = Verdict(rule is not None, Layer.ADDRESS, rule, Identity.IP, "why", "add it")
    assert forms.verdict_from_json(json.loads(json.dumps(forms.verdict_to_json(verdict)))) == verdict


def test_an_error_comes_out_as_it_went_in() -> None:
    error = UserError("bad-thing", "it is bad", hint="do good", exit_status=4, details={"row": 7})
    with pytest.raises(UserError) as caught:
        protocol.decode_response(protocol.encode_error(error))
    assert (caught.value.as_dict(), caught.value.exit_status) == (error.as_dict(), 4)


@pytest.mark.parametrize(
    "line", [b"", b"hello\n", b"[]\n", b"{}\n", b'{"ok": true}\n', b'{"ok": false, "error": 3}\n', b"\xff\n"]
)
def test_what_is_no_response_is_said(line: bytes) -> None:
    with pytest.raises(UserError) as caught:
        protocol.decode_response(line)
    assert caught.value.code == "gate-protocol"
