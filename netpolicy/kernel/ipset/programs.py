"""iptables' own programs: which of them, and what goes in and comes out. Rules change by ``iptables-restore`` alone.

There are two sorts: over nf_tables, and the older one that is now called legacy. We take the sort that has our rules already,
then the one that the host has rules in, then the first that works. The older one is not asked where its tables do not exist,
for asking makes them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from netpolicy import command
from netpolicy.errors import Exit, UserError
from netpolicy.kernel import netns
from netpolicy.kernel.netns import Namespace

Sort = Literal["nft", "legacy"]
_WAIT_SECONDS: Final = 10
_NAMES: Final = {4: "iptables", 6: "ip6tables"}


@dataclass(frozen=True)
class Programs:
    """The programs of one sort, for one namespace."""

    namespace: Namespace
    sort: Sort
    plain: bool
    """Whether they go by the names without the sort."""

    def save(self, version: int) -> list[str]:
        """What there is, line by line."""
        return self._run(version, "save").splitlines()

    def restore(self, version: int, script: str) -> None:
        """Carry out a script; each table's part at once, one after the other.

        Raises:
            UserError: ``kernel-refused`` with the line; tables before it are done.
        """
        self._run(version, "restore", "--noflush", "--wait", str(_WAIT_SECONDS), script=script)

    def _run(self, version: int, what: str, *words: str, script: str = "") -> str:
        middle = "" if self.plain else f"-{self.sort}"
        argv = [f"{_NAMES[version]}{middle}-{what}", *words]
        try:
            return netns.call(self.namespace, command.run, argv, stdin=script.encode()).text
        except UserError as error:
            raise _explained(error, argv[0], script) from error


def families() -> tuple[int, ...]:
    """The address families that the kernel has."""
    return (4, 6) if Path("/proc/net/if_inet6").exists() else (4,)


def choose(namespace: Namespace, chain: str) -> Programs:
    """The programs to use; `chain` is one that we have in the table ``mangle`` wherever our rules are.

    Raises:
        UserError: ``kernel-missing`` with what each sort lacks.
    """
    has_legacy = netns.call(namespace, _legacy_tables)
    order: tuple[Sort, Sort] = ("legacy", "nft") if has_legacy else ("nft", "legacy")
    works: Programs | None = None
    lacking: list[str] = []
    for sort in order:
        if sort == "legacy" and works is not None and not has_legacy:
            continue
        try:
            found = _find(namespace, sort)
            if any(line.startswith(f":{chain} ") for line in found.save(4)):
                return found
            for version in families()[1:]:
                found.save(version)
            works = works or found
        except UserError as error:
            lacking.append(error.message)
    if works is None:
        raise UserError(
            "kernel-missing",
            f"iptables does not work here: {'; '.join(dict.fromkeys(lacking))}",
            hint="Both iptables-nft and iptables-legacy take CAP_NET_ADMIN and CAP_NET_RAW.",
            exit_status=Exit.MISSING,
        )
    return works


def _find(namespace: Namespace, sort: Sort) -> Programs:
    if shutil.which(f"iptables-{sort}-restore"):
        return Programs(namespace, sort, False)
    said = command.run(["iptables", "--version"]).text
    # Before 1.8 there was one sort, which did not name itself.
    if ("nf_tables" in said) == (sort == "nft"):
        return Programs(namespace, sort, True)
    raise UserError(
        "program-missing", f"the program 'iptables-{sort}-restore' is not installed", exit_status=Exit.MISSING
    )


def _legacy_tables() -> bool:
    return any(Path(f"/proc/thread-self/net/{name}_tables_names").exists() and _content(name) for name in ("ip", "ip6"))


def _content(name: str) -> str:
    try:
        return Path(f"/proc/thread-self/net/{name}_tables_names").read_text().strip()
    except OSError:
        return ""


def _explained(error: UserError, program: str, script: str) -> UserError:
    if error.code == "program-missing":
        return UserError("kernel-missing", error.message, exit_status=Exit.MISSING)
    said = [line for line in _lines(error) if line and not line.startswith("Try `")]
    text = "; ".join(said[:3]) or error.message
    line = next((word for one in said for word in [one.rpartition("line: ")[2].split(" ")[0]] if "line: " in one), "")
    rules = script.splitlines()
    culprit = rules[int(line) - 1] if line.isdigit() and 0 < int(line) <= len(rules) else ""
    return UserError(
        "kernel-refused",
        f"{program}: {text}" + (f" ({culprit})" if culprit else ""),
        hint="iptables asks ipset by a raw socket: that takes CAP_NET_RAW." if "socket to ipset" in text else None,
        details={**error.details, "line": culprit},
    )


def _lines(error: UserError) -> Iterator[str]:
    for line in str(error.details.get("stderr", "")).splitlines():
        text = line.strip()
        if not text.startswith("#"):
            yield text
