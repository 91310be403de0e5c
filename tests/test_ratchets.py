"""Habits we do not want: each is counted, and the count may only fall. A number above zero carries its reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("netpolicy", "sidecars", "cspace_mcp")


def sources(*tops: str) -> Iterator[tuple[str, str]]:
    for top in tops:
        for path in sorted((ROOT / top).rglob("*.py")):
            if path != Path(__file__):
                yield path.relative_to(ROOT).as_posix(), path.read_text()


def matching_lines(pattern: str, *tops: str, allowed: tuple[str, ...] = ()) -> list[str]:
    expression = re.compile(pattern)
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in sources(*tops)
        if not name.startswith(allowed or ("\0",))
        for number, line in enumerate(text.splitlines(), 1)
        if expression.search(line)
    ]


def imports(text: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(
    ("habit", "pattern", "tops", "allowed", "at_most"),
    [
        ("a sleep in a test", r"\btime\.sleep\(|(asyncio|anyio)\.sleep\((?!0\))", ("tests",), (), 0),
        # The frame of both programs: a defect must not end with status 1, which means "denied".
        ("a broad except", r"except (Base)?Exception\b", PACKAGES, ("netpolicy/cli/program.py",), 0),
        ("unfinished work", r"\b(TODO|FIXME|XXX)\b|NotImplementedError", (*PACKAGES, "tests", "benchmarks"), (), 0),
        ("a skip that CI could miss", r"pytest\.skip\(|mark\.skip", ("tests",), ("tests/conftest.py",), 0),
        (
            "a second door to other programs",
            r"\bsubprocess\.(run|call|check_call|check_output)\(|os\.system\(",
            PACKAGES,
            ("netpolicy/command.py",),
            0,
        ),
        ("a second door to the clock", r"\btime\.(time|monotonic)\(\)", PACKAGES, ("netpolicy/clock.py",), 0),
        ("an unexplained type escape", r"# type: ignore(?!\[)", PACKAGES, (), 0),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) and " " in value else "",
)
def test_habit(habit: str, pattern: str, tops: tuple[str, ...], allowed: tuple[str, ...], at_most: int) -> None:
    found = matching_lines(pattern, *tops, allowed=allowed)
    assert len(found) <= at_most, f"{habit}:\n" + "\n".join(found)


def test_only_sidecars_imports_docker() -> None:
    assert not [name for name, text in sources("netpolicy", "cspace_mcp") if "docker" in imports(text)]


def test_docker_has_one_door() -> None:
    found = [name for name, text in sources("sidecars") if "docker" in imports(text)]
    assert all(name.startswith("sidecars/engine") for name in found), found


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("netpolicy", {"sidecars", "cspace_mcp", "mcp"}), ("sidecars", {"cspace_mcp", "mcp"})],
)
def test_imports_point_one_way(package: str, forbidden: set[str]) -> None:
    assert not [name for name, text in sources(package) if imports(text) & forbidden]


def test_rooms_stay_small() -> None:
    large = {name: len(text.splitlines()) for name, text in sources(*PACKAGES) if len(text.splitlines()) > 400}
    assert not large, "past 400 lines a second thing has moved in"
