"""The choice between the enforcers is made by trying them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from netpolicy import command
from netpolicy.errors import Exit, UserError
from netpolicy.kernel import backends, netns
from netpolicy.kernel.backends import open_enforcer
from netpolicy.kernel.ipset.messages import Sets
from netpolicy.kernel.ipset.programs import Programs
from netpolicy.kernel.netlink import Netlink

pytestmark = pytest.mark.kernel


@pytest.fixture
def namespace() -> Iterator[int]:
    made = netns.anonymous()
    yield made
    os.close(made)


def lacking(monkeypatch: pytest.MonkeyPatch, where: type, method: str, why: str) -> None:
    def missing(*_: object, **__: object) -> None:
        raise UserError("kernel-missing", why, exit_status=Exit.MISSING)

    monkeypatch.setattr(where, method, missing)


def rules_in(namespace: int) -> str:
    programs = (["nft", "list", "ruleset"], ["ipset", "list"])
    return "".join(netns.call(namespace, command.run, words).text for words in programs)


@pytest.mark.requirement("F9")
def test_nftables_where_it_works(namespace: int) -> None:
    chosen = open_enforcer(netns=namespace)
    assert chosen.backend == "nftables"
    assert not rules_in(namespace), "the trial was elsewhere"
    chosen.close()


@pytest.mark.requirement("F9")
def test_ipset_where_nftables_does_not(namespace: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, Netlink, "transaction", "no nf_tables here")
    chosen = open_enforcer(netns=namespace)
    assert chosen.backend == "ipset"
    assert not rules_in(namespace)
    chosen.install("csp-")
    assert "np-fwd" in rules_in(namespace)
    chosen.uninstall()
    chosen.close()


def test_in_place_where_no_namespace_may_be_made(namespace: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that has no CAP_SYS_ADMIN."""
    tried: list[object] = []
    monkeypatch.setattr(netns, "anonymous", lambda: (_ for _ in ()).throw(UserError("not-permitted", "no")))
    for name, make in backends._makers().items():
        backends.attempt(lambda table, where, make=make: tried.append((table, where)) or make(table, where), namespace)
        assert not re.search(r"\bnp|try|Name:", rules_in(namespace)), f"{name} left something"
    assert [where for _, where in tried] == [namespace, namespace]
    assert all(table != "netpolicy" for table, _ in tried)


def test_neither(namespace: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, Netlink, "transaction", "no nf_tables here")
    lacking(monkeypatch, Programs, "restore", "no iptables here")
    with pytest.raises(UserError) as refused:
        open_enforcer(netns=namespace)
    assert refused.value.code == "kernel-missing"
    assert refused.value.exit_status == Exit.MISSING
    assert refused.value.details["lacking"] == {"nftables": "no nf_tables here", "ipset": "no iptables here"}
    assert "no nf_tables here" in refused.value.message
    assert "no iptables here" in refused.value.message


def test_named_it_is_taken_untried(namespace: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, Netlink, "transaction", "no nf_tables here")
    lacking(monkeypatch, Sets, "check", "no ipset here")
    for backend in ("nftables", "ipset"):
        chosen = open_enforcer(backend, netns=namespace)
        assert chosen.backend == backend
        with pytest.raises(UserError, match=r"no (nf_tables|ipset) here"):
            chosen.install(None)
        chosen.close()
    with pytest.raises(UserError) as refused:
        open_enforcer("pf", netns=namespace)  # type: ignore[arg-type]  # what a person may type
    assert refused.value.code == "bad-backend"


def test_without_ipset_in_the_kernel(namespace: int) -> None:
    """A message to a part of the kernel that is not there."""
    link = Netlink(namespace)
    import netpolicy.kernel.ipset.messages as messages

    original = messages._SUBSYSTEM
    messages._SUBSYSTEM = 15
    try:
        with pytest.raises(UserError) as refused:
            Sets(link).check()
    finally:
        messages._SUBSYSTEM = original
        link.close()
    assert refused.value.code == "kernel-missing"
