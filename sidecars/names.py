"""Names of instances and projects: what is valid, which one comes next, and which Docker objects follow from them.

Both are DNS labels (RFC 1123), because they are parts of host names: ``<label>.<instance>.<project>.<zone>``. A name given with
a ``/`` is a branch; the instance is called after it (``fix/login`` becomes ``fix-login``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import count

from netpolicy.errors import Exit, UserError

#: Longest name, in characters. Two of them with our prefix and suffixes stay below every limit of Docker and DNS.
LONGEST = 40

PLANETS = ("mercury", "venus", "earth", "mars", "jupiter", "saturn", "uranus", "neptune")
#: Further bodies of the solar system, taken when the planets are used up.
BODIES = (
    "pluto", "ceres", "eris", "haumea", "makemake", "sedna", "quaoar", "orcus", "gonggong", "luna", "phobos", "deimos",
    "io", "europa", "ganymede", "callisto", "amalthea", "himalia", "titan", "rhea", "iapetus", "dione", "tethys",
    "enceladus", "mimas", "hyperion", "phoebe", "janus", "titania", "oberon", "umbriel", "ariel", "miranda", "puck",
    "triton", "proteus", "nereid", "larissa", "charon", "nix", "hydra", "kerberos", "styx", "dysnomia", "vesta",
    "pallas", "hygiea", "juno", "psyche", "eros", "ida", "dactyl", "halley",
)  # fmt: skip

_VALID = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Name:
    """What a person called an instance."""

    text: str
    """The instance's name."""
    branch: str | None = None
    """The branch that was meant, where the name was given as one."""


def parse(text: str) -> Name:
    """Read an instance's name as a person writes it.

    Raises:
        UserError: ``bad-name``.
    """
    if "/" in text:
        return Name(_checked(_slug(text), "instance", text), text)
    return Name(_checked(text, "instance", text))


def project(text: str) -> str:
    """Make a project's name out of a folder's name, or check one that was configured (a valid name comes back as it is).

    Raises:
        UserError: ``bad-name``.
    """
    return _checked(_slug(text), "project", text)


def suggestions() -> Iterator[str]:
    """Every name that `up` without a name may take, in order; it never ends."""
    for turn in count(1):
        for body in (*PLANETS, *BODIES):
            yield body if turn == 1 else f"{body}-{turn}"


def first_free(taken: Collection[str]) -> str:
    """The first suggestion that is not taken."""
    return next(name for name in suggestions() if name not in taken)


def object_name(project_name: str, instance: str | None, part: str | None = None) -> str:
    """The name of a Docker object: ``cspace-<project>[-<instance>][-<part>]``. For people; we find objects by label."""
    return "-".join(word for word in ("cspace", project_name, instance, part) if word)


def tag(project_name: str, instance: str) -> str:
    """Eight hexadecimal digits that stand for an instance where names are too long: interface, attachment."""
    return hashlib.sha256(f"{project_name}/{instance}".encode()).hexdigest()[:8]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:LONGEST].rstrip("-")


def _checked(text: str, kind: str, given: str) -> str:
    if _VALID.fullmatch(text):
        return text
    near = _slug(given)
    raise UserError(
        "bad-name",
        f"{given!r} cannot be the name of a {kind}" if kind == "project" else f"{given!r} cannot be an instance's name",
        hint=f"Use lower-case letters, digits and dashes, at most {LONGEST}"
        + (f", for example {near!r}." if near else "."),
        exit_status=Exit.BAD_INPUT,
    )
