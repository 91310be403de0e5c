"""The ways from the router namespace to the outside, and which one a run takes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Literal, Protocol

from netpolicy.errors import Exit, UserError

Kind = Literal["host", "pasta", "slirp4netns"]
KINDS: tuple[Kind, ...] = ("host", "pasta", "slirp4netns")
#: The uplink's name in the router namespace.
INTERFACE = "up0"


@dataclass(frozen=True, slots=True)
class Reach:
    """What an uplink offers."""

    v4: bool
    v6: bool

    def __str__(self) -> str:
        return " and ".join(name for name, has in (("IPv4", self.v4), ("IPv6", self.v6)) if has) or "nothing"


class Uplink(Protocol):
    """Connects a router namespace. Both calls block."""

    kind: Kind

    def connect(self, router: int) -> Reach:
        """Make `INTERFACE` in the namespace, with addresses and default routes. Raises UserError."""

    def close(self) -> None:
        """Take back whatever was made outside of the namespace. May be called without `connect`, and twice."""


def choose(wanted: Kind | None, *, privileged: bool) -> Kind:
    """The uplink to use.

    Args:
        wanted: What the user asked for; None takes the best there is.
        privileged: Whether the host's network may be changed.

    Raises:
        UserError: ``no-uplink``, naming what to install.
    """
    if wanted == "host" and not privileged:
        raise UserError(
            "no-uplink",
            "an uplink through the host's own network needs root",
            hint="Run as root, or use --uplink pasta or --uplink slirp4netns.",
            exit_status=Exit.MISSING,
        )
    if wanted == "host" or (wanted is None and privileged):
        return "host"
    candidates: tuple[Kind, ...] = KINDS[1:] if wanted is None else (wanted,)
    for kind in candidates:
        if shutil.which(kind):
            return kind
    raise UserError(
        "no-uplink",
        f"the program {wanted} is not installed"
        if wanted
        else "without root, 'netpolicy run' needs the program pasta or slirp4netns, and neither is installed",
        hint="On Debian and Ubuntu: apt install passt (which brings pasta), or apt install slirp4netns.",
        exit_status=Exit.MISSING,
    )
