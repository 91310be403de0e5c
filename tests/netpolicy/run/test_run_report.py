"""What is told at the end: each refused destination with the names that lead there and the rule that would allow it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from netpolicy.attachment import Attachment, Refusal
from netpolicy.compile import compile_policy
from netpolicy.gate.protocol import DnsState, State
from netpolicy.policy import parse
from netpolicy.presets import names as preset_names
from netpolicy.ruleset import Learned, Ruleset
from netpolicy.run.refused import Refused, explained, names
from netpolicy.run.report import Report
from netpolicy.services import Service

WEB = ip_address("192.0.2.7")
ATTACHMENT = Attachment("run", "netpolicy run", "work0", (ip_network("10.0.0.0/30"),), (ip_address("10.0.0.1"),))


def ruleset(**policy: object) -> Ruleset:
    presets = dict.fromkeys(preset_names(), False)
    return compile_policy(parse({"presets": presets, "domains": ["web.example"], **policy}, source="policy.json"))


def rows(*refusals: Refusal, **policy: object) -> tuple[Refused, ...]:
    learned = (
        Learned("web.example", WEB, (Service(6, 443, 443),), 60),
        Learned("cdn.example", WEB, (Service(6, 443, 443),), 60),
    )
    return explained(refusals, ruleset(**policy), learned, ATTACHMENT)


def test_an_address_of_allowed_names_is_told_by_them() -> None:
    (row,) = rows(Refusal(WEB, 6, 8080, 3))
    assert row.names == ("web.example", "cdn.example")
    assert row.add == ("web.example:8080/tcp", "cdn.example:8080/tcp")
    assert row.line() == "web.example:8080/tcp or cdn.example:8080/tcp  (3 packets to 192.0.2.7:8080/tcp)"


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        (Refusal(ip_address("192.0.2.99"), 6, 80, 1), "192.0.2.99:80/tcp  (1 packet)"),
        (Refusal(ip_address("2001:db8::9"), 17, 9, 2), "[2001:db8::9]:9/udp  (2 packets)"),
        (Refusal(ip_address("192.0.2.99"), 1, 0, 2), "192.0.2.99/icmp  (2 packets)"),
    ],
)
def test_any_other_is_told_by_its_address(refusal: Refusal, line: str) -> None:
    assert [row.line() for row in rows(refusal)] == [line]


@pytest.mark.parametrize("protocol", [6, 17, 1])
def test_what_is_added_allows_it(protocol: int) -> None:
    """The text is taken up as it is, and the same destination is not refused again."""
    (row,) = rows(Refusal(ip_address("198.51.100.9"), protocol, 0 if protocol == 1 else 77, 1))
    again = explained([row.refusal], ruleset(allow=list(row.add)), (), ATTACHMENT)
    assert "allows" in again[0].explanation


def test_what_no_rule_can_open_says_why() -> None:
    (odd, host) = rows(Refusal(ip_address("192.0.2.99"), 253, 0, 2), Refusal(ip_address("10.0.0.1"), 6, 22, 1))
    assert odd.add == host.add == ()
    assert odd.line().startswith("192.0.2.99/253  (2 packets; no rule has the address")
    assert "is the host" in host.line()


def report(*refused: Refused, **changes: object) -> Report:
    denied = names({"shop.example": 2, "a.ads.example": 1}, ruleset(deny=["*.ads.example"]))
    dns = DnsState(port=1, listening=True)
    phase = changes.pop("phase", "enforced")
    state = State(ATTACHMENT, phase, "policy.json", "0", 1, 0, 0, (), (), 4, dns, None, 0.0)
    return Report(("true",), 0, 1.0, "host", "IPv4", state, denied, refused, **changes)  # type: ignore[arg-type]  # as given


def test_the_summary_and_the_report_list_names_and_destinations() -> None:
    where = {"domains": "firewall.domains in policy.json", "allow": "firewall.allow in policy.json"}
    made = report(*rows(Refusal(ip_address("192.0.2.99"), 6, 80, 4)), backend="nftables", **where)
    assert made.lines() == [
        "4 packets refused",
        "names that are not allowed; to allow one add it to firewall.domains in policy.json:",
        "    shop.example  (2 times)",
        "    a.ads.example  (denied by *.ads.example (policy.json, firewall.deny[0]))",
        "destinations that are not allowed; to allow one add it to firewall.allow in policy.json:",
        "    192.0.2.99:80/tcp  (4 packets)",
    ]
    document = made.to_json()
    assert document["backend"] == "nftables"
    assert [row["add"] for row in document["refused"]] == [["192.0.2.99:80/tcp"]]
    assert [row["add"] for row in document["denied_names"]] == ["shop.example", None]


def test_what_was_only_observed_is_told_as_that() -> None:
    lines = report(phase="observed").lines()
    assert lines[:2] == [
        "policy.json was only observed, and nothing refused; what follows would have been",
        "4 packets would have been refused",
    ]


def test_a_long_list_is_cut_for_people_only() -> None:
    made = report(*rows(*(Refusal(ip_address("192.0.2.99"), 6, 100 + n, 1) for n in range(20))))
    assert "    and 12 more (--json-report FILE has them all)" in made.lines()
    assert len(made.to_json()["refused"]) == 20
