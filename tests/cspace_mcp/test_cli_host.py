"""What is one for a whole machine: its settings, and what `doctor` says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkouts import Checkout

from cspace_mcp.config import host_settings
from netpolicy.errors import Exit, UserError

docker = pytest.mark.docker


def settings(folder: Path, document: Any) -> dict[str, str]:
    """The environment that has them."""
    (folder / "cspace").mkdir(exist_ok=True)
    (folder / "cspace" / "host.json").write_text(json.dumps(document))
    return {"XDG_CONFIG_HOME": str(folder)}


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    assert host_settings({"XDG_CONFIG_HOME": str(tmp_path)}).gate.prefix == "csp-"
    assert host_settings({"HOME": str(tmp_path), "XDG_CONFIG_HOME": "relative"}).gate.prefix == "csp-"


def test_the_prefix_is_read(tmp_path: Path) -> None:
    assert host_settings(settings(tmp_path, {"gate": {"prefix": "box1-"}})).gate.prefix == "box1-"


def test_the_backend_is_read(tmp_path: Path) -> None:
    assert host_settings({"XDG_CONFIG_HOME": str(tmp_path)}).gate.backend == "auto"
    assert host_settings(settings(tmp_path, {"gate": {"backend": "ipset"}})).gate.backend == "ipset"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"gate": {"prefix": "Box-"}}, "must be a letter, at most five more"),
        ({"gate": {"prefix": "toolong-"}}, "must be a letter, at most five more"),
        ({"gate": {"prefix": ""}}, "must be a letter, at most five more"),
        ({"gate": {"prefix": 7}}, "must be a valid string"),
        ({"gate": {"backend": "pf"}}, "must be 'auto', 'nftables' or 'ipset'"),
        ({"gate": {"prefx": "a-"}}, "unknown key; did you mean 'prefix'?"),
        ({"gates": {}}, "unknown key; did you mean 'gate'?"),
        ([], "must be"),
    ],
)
def test_what_is_wrong_in_it_is_named(tmp_path: Path, document: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        host_settings(settings(tmp_path, document))
    assert (caught.value.code, caught.value.exit_status) == ("bad-config", Exit.BAD_INPUT)
    assert "host.json" in caught.value.message
    assert words in caught.value.message


@docker
def test_one_prefix_for_all_instances_of_a_host(checkout: Checkout, tmp_path: Path) -> None:
    other = settings(tmp_path, {"gate": {"prefix": "box-"}})
    checkout.cspace("up", "--no-claude", "mercury", **other)
    links = checkout.machine.lab.host.run(["ip", "-brief", "link"]).text
    assert "box-" in links
    refused = checkout.cspace("up", "--no-claude", "venus", ok=(Exit.CONFLICT,)).stderr.decode()
    assert "one gate locks one prefix" in refused
    assert f"cspace-{checkout.root.name}-mercury" in refused
    assert [i["name"] for i in checkout.json("list")["instances"]] == ["mercury"]
    checkout.cspace("down", "mercury", "--force", **other)


def host_line(checkout: Checkout) -> dict[str, Any]:
    (found,) = [check for check in checkout.json("doctor")["checks"] if check["name"] == "host"]
    return dict(found)


@docker
def test_doctor_finds_a_firewall_of_the_host_in_the_way_and_says_what_mends_it(checkout: Checkout) -> None:
    """As ufw does it: what nothing accepts is dropped on its way to the host itself."""
    checkout.cspace("up", "--no-claude")
    host = checkout.machine.lab.host
    assert host_line(checkout)["message"] == "no source routing; its firewall lets questions through to the gate"
    try:
        for tool in ("iptables", "ip6tables"):
            host.run([tool, "-w", "-P", "INPUT", "DROP"])
        found = host_line(checkout)
        assert found["state"] == "warning"
        assert "no name resolves there" in found["message"]
        for command in found["hint"].split(" (")[0].split("; "):
            host.run(command.split())
        assert host_line(checkout)["state"] == "ok"
    finally:
        for tool in ("iptables", "ip6tables"):
            host.run([tool, "-w", "-P", "INPUT", "ACCEPT"])
            host.run([tool, "-w", "-F", "INPUT"])


@docker
def test_doctor_finds_source_routing(checkout: Checkout) -> None:
    checkout.cspace("up", "--no-claude")
    host = checkout.machine.lab.host
    (network,) = checkout.machine.host.docker("network", "ls", "--quiet", "--filter", "label=cspace.instance").split()
    interface = checkout.machine.host.docker(
        "network", "inspect", "--format", '{{index .Options "com.docker.network.bridge.name"}}', network
    ).strip()
    keys = [f"net.ipv4.conf.{name}.accept_source_route" for name in ("all", interface)]
    try:
        host.run(["sysctl", "-w", f"{keys[1]}=1"])
        assert host_line(checkout)["state"] == "ok", "the kernel asks for both settings"
        host.run(["sysctl", "-w", f"{keys[0]}=1"])
        found = host_line(checkout)
        assert (found["state"], interface in found["message"]) == ("warning", True)
        host.run(found["hint"].split())
        assert host_line(checkout)["state"] == "ok"
    finally:
        host.run(["sysctl", "-w", *(f"{key}=0" for key in keys)])
