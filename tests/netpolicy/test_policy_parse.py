"""A policy object: what is accepted, and everything that is wrong said at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from policy_strategies import anything, broken, policies

from netpolicy import policy as language
from netpolicy.errors import Exit, UserError
from netpolicy.policy import Policy
from netpolicy.policy.problems import shown


def parse(document: Any, **more: Any) -> Policy:
    return language.parse(document, source=".cspace.json", **more)


def problems(document: Any, **more: Any) -> list[tuple[str, str]]:
    with pytest.raises(UserError) as error:
        parse(document, **more)
    assert (error.value.code, error.value.exit_status) == ("bad-policy", Exit.BAD_INPUT)
    json.dumps(error.value.as_dict(), ensure_ascii=False).encode()
    error.value.as_text().encode()
    return [(row["key"], row["message"]) for row in error.value.details["problems"]]


def test_the_empty_policy_is_the_defaults() -> None:
    policy = parse({})
    assert policy == Policy(active=policy.active)
    assert [preset.name for preset in policy.active] == [
        "anthropic", "claude", "github", "npm", "observability", "testing", "vercel",
    ]  # fmt: skip
    assert (policy.verify.blocked, policy.verify.allowed) == (("example.com",), ("https://api.github.com/zen",))
    assert policy == language.load(None)


@pytest.mark.requirement("F6")
def test_every_key_is_read() -> None:
    policy = parse(
        {
            "mode": "observe",
            "domains": ["Example.org", "example.net:8443"],
            "allow": [
                "192.0.2.0/24:5432/tcp",
                {"host": "example.com", "ports": [443, "8000-8010/udp", "icmp"], "reason": "the API"},
                {"host": "db.example.com:5432", "reason": "tests"},
                {"host": "2001:db8::/32"},
                {"host": "*.Example.com.", "expires": "2027-01-31", "roles": ["browser", "dev", "dev"]},
                {
                    "host": "a.example",
                    "expires": "2027-01-31t18:00:00.9+01:00",
                    "roles": ["dev", "services", "browser"],
                },
            ],
            "deny": ["*.com", "192.0.2.128/25:22", {"host": "b.example", "roles": ["services"], "reason": "why"}],
            "ipv6": False,
            "on_drift": "lock",
            "presets": {"pypi": True, "vercel": False},
            "ssh": False,
            "host_access": [5432, "8125/udp", "9000-9002"],
            "verify": {"blocked": ["Example.net:443", "bücher.example"], "allowed": ["https://example.org/up"]},
            "dns": {"upstream": ["192.0.2.53", "192.0.2.54:5353", "2001:db8::53", "[2001:DB8::54]:53"]},
        }
    )
    assert policy.to_json() == {
        "mode": "observe",
        "domains": ["example.org", "example.net:8443/tcp"],
        "allow": [
            "192.0.2.0/24:5432/tcp",
            {"host": "example.com", "ports": ["icmp", "443/tcp", "8000-8010/udp"], "reason": "the API"},
            {"host": "db.example.com", "ports": ["5432/tcp"], "reason": "tests"},
            "2001:db8::/32",
            {"host": "*.example.com", "expires": "2027-01-31", "roles": ["dev", "browser"]},
            {"host": "a.example", "expires": "2027-01-31T17:00:00Z"},
        ],
        "deny": ["*.com", "192.0.2.128/25:22/tcp", {"host": "b.example", "reason": "why", "roles": ["services"]}],
        "presets": {"pypi": True, "vercel": False},
        "ssh": False,
        "host_access": ["5432/tcp", "8125/udp", "9000-9002/tcp"],
        "ipv6": False,
        "on_drift": "lock",
        "verify": {"blocked": ["example.net:443/tcp", "xn--bcher-kva.example"], "allowed": ["https://example.org/up"]},
        "dns": {"upstream": ["192.0.2.53", "192.0.2.54:5353", "2001:db8::53", "2001:db8::54"]},
    }
    assert [str(rule.origin) for rule in policy.domains] == [
        "Example.org (.cspace.json, firewall.domains[0])",
        "example.net:8443 (.cspace.json, firewall.domains[1])",
    ]
    assert policy.allow[1].origin.text == "example.com (icmp, 443/tcp, 8000-8010/udp)"
    assert (policy.allow[1].reason, policy.allow[1].origin.reason) == ("the API", "the API")
    names = {preset.name for preset in policy.active}
    assert "pypi" in names
    assert "vercel" not in names


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        parse({"domain": ["example.com"], "domains": ["a b"], "presets": {"gihtub": True}, "ssh": "yes"})
    assert error.value.as_text() == (
        "4 problems in the policy:\n"
        "  .cspace.json: firewall.domain: unknown key; did you mean 'domains'?\n"
        "  .cspace.json: firewall.presets.gihtub: there is no such preset; did you mean 'github'?\n"
        '  .cspace.json: firewall.domains[0] = "a b": a target has no spaces; write each target as an entry of its own\n'
        '  .cspace.json: firewall.ssh = "yes": must be true (bare targets get tcp/22), false, or "any" (tcp/22 to every address)\n'
        "  docs/policy.md shows every key."
    )
    assert error.value.details["problems"][2] == {
        "file": ".cspace.json",
        "key": "firewall.domains[0]",
        "value": "a b",
        "message": "a target has no spaces; write each target as an entry of its own",
    }


def test_one_problem_is_one_line_and_many_are_cut() -> None:
    with pytest.raises(UserError) as error:
        parse({"ssh": 1}, prefix="")
    assert error.value.message == (
        '.cspace.json: ssh = 1: must be true (bare targets get tcp/22), false, or "any" (tcp/22 to every address)'
    )
    with pytest.raises(UserError) as error:
        parse({"domains": ["a b"] * 30})
    assert error.value.message.startswith("30 problems in the policy:")
    assert error.value.message.endswith("\n  and 10 more")
    assert len(error.value.details["problems"]) == 30


@pytest.mark.parametrize(
    ("document", "key", "said"),
    [
        ([], "firewall", "must be an object"),
        ({"expires": 1}, "firewall.expires", "unknown key; known here: allow, deny, dns, domains,"),
        ({"mode": "learn"}, "firewall.mode", 'must be "enforce" or "observe" or "off"'),
        ({"mode": ["off"]}, "firewall.mode", 'must be "enforce" or "observe" or "off"'),
        (
            {"mode": "off", "enabled": True},
            "firewall.mode",
            "contradicts `enabled`, which is true; leave one of them out",
        ),
        ({"mode": "enforce", "enabled": False}, "firewall.mode", "contradicts `enabled`, which is false"),
        ({"mode": "observe", "enabled": False}, "firewall.mode", "contradicts `enabled`, which is false"),
        ({"mode": "learn", "enabled": False}, "firewall.mode", 'must be "enforce" or'),
        ({"deny": ["localhost"]}, "firewall.deny[0]", "which it always reaches; there is nothing to deny"),
        (
            {"deny": ["127.0.0.0/8"]},
            "firewall.deny[0]",
            "never leaves the workload's own link: there is nothing to deny",
        ),
        ({"deny": ["192.0.2.53:53/udp"]}, "firewall.deny[0]", "nothing reaches that server anyway"),
        ({"ipv6": "no"}, "firewall.ipv6", "must be true or false"),
        ({"on_drift": None}, "firewall.on_drift", 'must be "repair" or "lock"'),
        ({"deny": {}}, "firewall.deny", "must be a list"),
        ({"deny": [1]}, "firewall.deny[0]", "must be a text such as"),
        ({"deny": ["*"]}, "firewall.deny[0]", "a wildcard is a whole first part"),
        (
            {"deny": [{"host": "a.example", "expires": "2027-01-31"}]},
            "firewall.deny[0].expires",
            "would open something",
        ),
        ({"allow": ["*.com"]}, "firewall.allow[0]", "com is a public suffix: anybody can have a name below it"),
        ({"domains": ["*.co.uk:443"]}, "firewall.domains[0]", "write *.yourname.co.uk, or the exact names"),
        ({"allow": [{"host": "*.github.io"}]}, "firewall.allow[0].host", "github.io is a public suffix"),
        ({"allow": [{"host": "*.github.io", "ports": [1]}]}, "firewall.allow[0].host", "github.io is a public suffix"),
        ({"verify": {"blocked": ["*.example.com"]}}, "firewall.verify.blocked[0]", "stands for many names"),
        ({"verify": {"allowed": ["https://*.example.com/"]}}, "firewall.verify.allowed[0]", "stands for many names"),
        ({"dns": {"upstream": ["*.example.com"]}}, "firewall.dns.upstream[0]", "must be a resolver's address"),
        ({"enabled": "no"}, "firewall.enabled", "must be true or false"),
        ({"domains": "example.com"}, "firewall.domains", 'must be a list, such as ["example.com", "example.org:443"]'),
        ({"domains": [7]}, "firewall.domains[0]", 'must be a text such as "example.com" or "example.com:443"'),
        ({"domains": [{"host": "a.example"}]}, "firewall.domains[0]", "objects belong in `allow`"),
        ({"allow": {}}, "firewall.allow", "must be a list"),
        ({"allow": [None]}, "firewall.allow[0]", "must be a text such as"),
        ({"allow": [{}]}, "firewall.allow[0]", "a rule needs a host"),
        ({"allow": [{"host": ""}]}, "firewall.allow[0].host", "must be a text that is not empty"),
        ({"allow": [{"host": 7}]}, "firewall.allow[0].host", "must be a text that is not empty"),
        ({"allow": [{"host": "a b"}]}, "firewall.allow[0].host", "no spaces"),
        ({"allow": [{"host": "a.example", "reason": ""}]}, "firewall.allow[0].reason", "not empty"),
        ({"allow": [{"host": "a.example", "port": 1}]}, "firewall.allow[0].port", "did you mean 'ports'?"),
        (
            {"allow": [{"host": "a.example", "expires": "1h"}]},
            "firewall.allow[0].expires",
            'must be a date such as "2027-01-31"',
        ),
        ({"allow": [{"host": "a.example", "expires": None}]}, "firewall.allow[0].expires", "must be a date such as"),
        ({"allow": [{"host": "a.example", "expires": True}]}, "firewall.allow[0].expires", "must be a date such as"),
        (
            {"allow": [{"host": "a.example", "expires": "2027-02-29"}]},
            "firewall.allow[0].expires",
            "there is no such date",
        ),
        (
            {"allow": [{"host": "a.example", "expires": "2027-01-31T25:00:00Z"}]},
            "firewall.allow[0].expires",
            "there is no such",
        ),
        (
            {"allow": [{"host": "a.example", "expires": "1999-12-30"}]},
            "firewall.allow[0].expires",
            "between the years 2000 and 9999",
        ),
        (
            {"allow": [{"host": "a.example", "expires": "9999-12-31T23:59:59-12:00"}]},
            "firewall.allow[0].expires",
            "9999",
        ),
        (
            {"allow": [{"host": "a.example", "expires": "2027-01-31 12:00:00"}]},
            "firewall.allow[0].expires",
            "has no time zone; write 2027-01-31T12:00:00Z, or an offset such as +01:00",
        ),
        ({"allow": [{"host": "a.example", "roles": "dev"}]}, "firewall.allow[0].roles", "must be a list"),
        ({"allow": [{"host": "a.example", "roles": []}]}, "firewall.allow[0].roles", "is empty; leave it out"),
        (
            {"allow": [{"host": "a.example", "roles": ["db"]}]},
            "firewall.allow[0].roles[0]",
            "one of dev, browser, services",
        ),
        ({"allow": [{"host": "a.example", "ports": []}]}, "firewall.allow[0].ports", "is empty; leave it out"),
        ({"allow": [{"host": "a.example", "ports": 443}]}, "firewall.allow[0].ports", "must be a list"),
        (
            {"allow": [{"host": "a.example", "ports": [True]}]},
            "firewall.allow[0].ports[0]",
            "must be a port such as 443",
        ),
        (
            {"allow": [{"host": "a.example", "ports": [1.5]}]},
            "firewall.allow[0].ports[0]",
            "must be a port such as 443",
        ),
        ({"allow": [{"host": "a.example", "ports": [-1]}]}, "firewall.allow[0].ports[0]", "port -1 does not exist"),
        ({"allow": [{"host": "a.example", "ports": ["http"]}]}, "firewall.allow[0].ports[0]", "is not a port"),
        ({"allow": [{"host": "a.example", "ports": [53]}]}, "firewall.allow[0].ports", "answers port 53"),
        ({"allow": [{"host": "a.example:1", "ports": [2]}]}, "firewall.allow[0].host", "has ports already"),
        ({"presets": []}, "firewall.presets", "must be an object"),
        ({"presets": {"npm": 1}}, "firewall.presets.npm", "must be true or false"),
        ({"host_access": ["icmp"]}, "firewall.host_access[0]", "only ports of the host can be opened"),
        ({"host_access": [0]}, "firewall.host_access[0]", "port 0 does not exist"),
        ({"verify": 1}, "firewall.verify", "must be an object"),
        ({"verify": {"blocks": []}}, "firewall.verify.blocks", "did you mean 'blocked'?"),
        ({"verify": {"blocked": [1]}}, "firewall.verify.blocked[0]", "must be a text such as"),
        ({"verify": {"blocked": ["a b"]}}, "firewall.verify.blocked[0]", "no spaces"),
        ({"verify": {"blocked": [" a.example"]}}, "firewall.verify.blocked[0]", "must be a text such as"),
        ({"verify": {"blocked": ["http://bücher.example"]}}, "firewall.verify.blocked[0]", "is plain ASCII"),
        ({"verify": {"blocked": ["http://a.example/b c"]}}, "firewall.verify.blocked[0]", "is plain ASCII"),
        ({"verify": {"blocked": ["me@a.example:x"]}}, "firewall.verify.blocked[0]", "must be a text such as"),
        ({"verify": {"blocked": ["ssh://a.example"]}}, "firewall.verify.blocked[0]", "begins with http:// or https://"),
        ({"verify": {"blocked": ["a.example:5/sctp"]}}, "firewall.verify.blocked[0]", "speaks tcp, udp or icmp"),
        ({"verify": {"blocked": ["192.0.2.0/24"]}}, "firewall.verify.blocked[0]", "one address, not a network"),
        ({"dns": {"upstreams": []}}, "firewall.dns.upstreams", "did you mean 'upstream'?"),
        ({"dns": {"upstream": [1]}}, "firewall.dns.upstream[0]", 'must be a text such as "192.0.2.53"'),
        ({"dns": {"upstream": ["dns.example"]}}, "firewall.dns.upstream[0]", "must be a resolver's address, such as"),
        ({"dns": {"upstream": ["192.0.2.1:0"]}}, "firewall.dns.upstream[0]", "port 0 does not exist"),
        ({"dns": {"upstream": ["[2001:db8::1]x"]}}, "firewall.dns.upstream[0]", "must be a resolver's address"),
        ({"dns": {"upstream": ["0.0.0.0"]}}, "firewall.dns.upstream[0]", "nobody answers at this address"),
        ({"dns": {"upstream": ["fe80::1%eth0"]}}, "firewall.dns.upstream[0]", "nobody answers at this address"),
        ({"policy_file": 1}, "firewall.policy_file", "must be a text"),
    ],
)
def test_each_mistake_names_its_key_and_what_would_be_right(document: Any, key: str, said: str) -> None:
    found = problems(document)
    assert [row[0] for row in found] == [key]
    assert said in found[0][1]


def test_a_wrong_reason_and_a_wrong_host_are_both_told() -> None:
    assert [key for key, _ in problems({"allow": [{"host": "a b", "reason": 1, "ports": ["x", 7]}]})] == [
        "firewall.allow[0].reason", "firewall.allow[0].host", "firewall.allow[0].ports[0]",
    ]  # fmt: skip


@pytest.mark.requirement("F6")
def test_the_environment_adds_domains() -> None:
    policy = parse({"domains": ["a.example"]}, environ={"CSPACE_FIREWALL_DOMAINS": " b.example:443\tc.example "})
    assert [str(rule.target) for rule in policy.domains] == ["a.example", "b.example:443/tcp", "c.example"]
    assert str(policy.domains[1].origin) == "b.example:443 (env:CSPACE_FIREWALL_DOMAINS, CSPACE_FIREWALL_DOMAINS)"
    with pytest.raises(UserError) as error:
        parse({}, environ={"CSPACE_FIREWALL_DOMAINS": "ok.example *.com *.example.com"})
    assert error.value.message.startswith('environment: CSPACE_FIREWALL_DOMAINS = "*.com": com is a public suffix')
    policy = parse({}, environ={"CSPACE_FIREWALL_DOMAINS": "*.example.com:443"})
    assert str(policy.domains[0].target) == "*.example.com:443/tcp"


def test_several_files_behind_one_document_are_told_apart() -> None:
    layers = language.Layers(
        (
            ("a.json", {"firewall": {"domains": ["a b"], "ssh": "any", "presets": {"npm": 1}}}),
            ("b.json", {"firewall": {"allow": ["c d"], "presets": {"pypi": 1}}}),
        )
    )
    with pytest.raises(UserError) as error:
        parse(layers.merged()["firewall"], owner=layers.owner)
    rows = {(row["key"], row["file"]) for row in error.value.details["problems"]}
    assert rows == {
        ("firewall.domains[0]", "a.json"),
        ("firewall.allow[0]", "b.json"),
        ("firewall.presets.npm", "a.json"),
        ("firewall.presets.pypi", "b.json"),
    }
    assert layers.owner("firewall.unheard.of") == "a.json"
    assert layers.owner("firewall.ssh.deeper") == "a.json"


def test_values_are_shown_on_one_line_and_safely() -> None:
    assert shown("a\n\x1b[31m\u202e") == '"a\\n\\u001b[31m\\u202e"'
    assert shown("x" * 200) == '"' + "x" * 78 + "…"
    assert shown("\udc80") == '"\\udc80"'
    assert shown({"a": [1, None]}) == '{"a": [1, null]}'
    assert problems({"domains": ["\udc80 x"]})


@given(policies())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_parse_print_parse_is_the_identity(document: dict[str, Any]) -> None:
    policy = parse(document)
    printed = policy.to_json()
    again = parse(json.loads(json.dumps(printed)))
    assert again == policy
    assert again.to_json() == printed


@given(broken | anything)
@example({"domains": ["\udc80"]})
@example({"policy_file": "\x00"})
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_any_document_is_accepted_or_refused_by_one_error(document: Any) -> None:
    try:
        policy = parse(document, base=Path("/nonexistent"), environ={"CSPACE_FIREWALL_DOMAINS": str(document)[:50]})
    except UserError as error:
        assert error.code == "bad-policy"
        assert error.details["problems"]
        json.dumps(error.as_dict(), ensure_ascii=False).encode()
        error.as_text().encode()
    else:
        assert isinstance(policy, Policy)
