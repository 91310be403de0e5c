"""Which enforcer: nf_tables, or ipset with iptables. Chosen by trying, never by the kernel's version."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from typing import Final, Literal, get_args

from netpolicy.attachment import Attachment, Enforcer
from netpolicy.clock import SystemClock
from netpolicy.errors import Exit, UserError
from netpolicy.flow import Origin
from netpolicy.kernel import netns
from netpolicy.kernel.netns import Namespace
from netpolicy.ruleset import HostRule, NameRule, RangeRule, Ruleset
from netpolicy.services import EVERY, Service

Backend = Literal["auto", "nftables", "ipset"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

Maker = Callable[[str, Namespace], Enforcer]


def open_enforcer(backend: Backend = "auto", *, table: str = "netpolicy", netns: Namespace = None) -> Enforcer:
    """The enforcer that this kernel has what it needs for; `Enforcer.backend` names it.

    Args:
        backend: ``auto`` tries nftables and then ipset, each with a whole policy in a namespace of its own where we may make
            one, and else in place with objects of another name, at an interface that does not exist.
            A backend that is named is taken as it is, and complains where it is used.
        table: What our objects in the kernel are named after.
        netns: The namespace to work in; None is our own.

    Raises:
        UserError: ``kernel-missing`` with what each backend lacks; ``bad-backend``.
    """
    makers = _makers()
    if backend != "auto":
        return makers[_named(backend)](table, netns)
    lacking: dict[str, str] = {}
    for name, make in makers.items():
        try:
            attempt(make, netns)
        except UserError as error:
            lacking[name] = error.message
        else:
            return make(table, netns)
    said = "; ".join(f"{name}: {why}" for name, why in lacking.items())
    raise UserError(
        "kernel-missing",
        f"no enforcer works on this host ({said})",
        hint="It takes CAP_NET_ADMIN, and a kernel with nf_tables or with ip_set and iptables.",
        exit_status=Exit.MISSING,
        details={"lacking": lacking},
    )


def remove(
    backend: str, *, table: str = "netpolicy", netns: Namespace = None, only: Collection[str] | None = None
) -> list[str]:
    """Take away everything that a backend which is no longer in use has put into the kernel.

    To be called once the other one has locked what there is. A host that never had this backend is no error.

    Args:
        backend: Whose rules.
        table: What they are named after.
        netns: The namespace they are in.
        only: Ids of the attachments that somebody else keeps closed. Where there are others nothing is removed, for it would open them;
            None: remove all the same.

    Returns:
        The ids of those others, sorted.

    Raises:
        UserError: what the kernel or a program refused; ``bad-backend``.
    """
    enforcer = open_enforcer(_named(backend), table=table, netns=netns)
    try:
        others = [] if only is None else sorted(set(enforcer.attachments()) - set(only))
        if not others:
            enforcer.uninstall()
        return others
    finally:
        enforcer.close()


def attempt(make: Maker, namespace: Namespace) -> None:
    """Put a policy with something of everything in force, and take it away again.

    Raises:
        UserError: what the kernel or a program refused.
    """
    with _scratch(namespace) as where:
        enforcer = make(f"try{secrets.token_hex(3)}", where)
        try:
            _exercise(enforcer)
        finally:
            enforcer.close()


def _exercise(enforcer: Enforcer) -> None:
    try:
        enforcer.install(None)
        enforcer.apply(_ATTACHMENT, _ruleset(SystemClock().now() + 86400), 5300)
        enforcer.detach(_ATTACHMENT.id)
    finally:
        enforcer.uninstall()


@contextmanager
def _scratch(namespace: Namespace) -> Iterator[Namespace]:
    """A namespace for a trial; the one we work in where we may make none."""
    try:
        made = netns.anonymous()
    except UserError:
        yield namespace
        return
    try:
        yield made
    finally:
        os.close(made)


def _named(text: str) -> Backend:
    for known in BACKENDS:
        if text == known:
            return known
    names = ", ".join(BACKENDS)
    raise UserError("bad-backend", f"{text!r} is no backend, only {names} are", exit_status=Exit.BAD_INPUT)


def _makers() -> dict[str, Maker]:
    # Each is imported where it is wanted.
    def nftables(table: str, namespace: Namespace) -> Enforcer:
        from netpolicy.kernel.nftables import NftablesEnforcer

        return NftablesEnforcer(table, namespace)

    def ipset(table: str, namespace: Namespace) -> Enforcer:
        from netpolicy.kernel.ipset import IpsetEnforcer

        return IpsetEnforcer(table, namespace)

    return {"nftables": nftables, "ipset": ipset}


_TRIAL: Final = Origin("built-in", "trial", "trial")
_ATTACHMENT: Final = Attachment(
    "trial",
    "a trial",
    "np-trial-none",
    (ip_network("192.0.2.0/29"), ip_network("2001:db8::/64")),
    (ip_address("192.0.2.1"), ip_address("2001:db8::1")),
)
_SERVICES: Final = (Service(1), Service(6, 443, 443), Service(17, 8000, 8010))


def _ruleset(end: float) -> Ruleset:
    """Something of everything."""
    return Ruleset(
        "trial",
        names=(NameRule("a.example", _SERVICES, _TRIAL),),
        ranges=tuple(
            RangeRule(ip_network(net), services, _TRIAL, until)
            for net in ("198.51.100.0/24", "2001:db8:1::/48")
            for services, until in ((_SERVICES, None), (_SERVICES[1:2], None), (_SERVICES, end))
        ),
        host=(HostRule(Service(6, 80, 80), _TRIAL),),
        denied_ranges=tuple(RangeRule(ip_network(n), EVERY, _TRIAL) for n in ("198.51.100.9/32", "2001:db8:1:9::/64")),
    )
