"""Two-way coverage between tests/requirements.toml and the tests that claim its rows."""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parent
ROWS = tomllib.loads((TESTS / "requirements.toml").read_text())


def claims() -> dict[str, set[str]]:
    """Row id -> test files that carry ``requirement("id")``."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "requirement":
                for argument in node.args:
                    assert isinstance(argument, ast.Constant), f"{path}: a requirement id must be a literal"
                    found[str(argument.value)].add(path.relative_to(TESTS.parent).as_posix())
    return found


def test_every_claim_names_a_row_that_is_promised() -> None:
    promised = {row for row, body in ROWS.items() if body["status"] != "planned"}
    assert not sorted(set(claims()) - promised), "tests claim rows that are unknown or still planned"


def test_every_promised_row_lists_exactly_the_files_that_prove_it() -> None:
    found = claims()
    wrong = {
        row: {"listed": sorted(body.get("tests", [])), "claiming": sorted(found.get(row, set()))}
        for row, body in ROWS.items()
        if body["status"] != "planned"
        and (not found.get(row) or sorted(body.get("tests", [])) != sorted(found.get(row, set())))
    }
    assert not wrong


def test_rows_are_well_formed() -> None:
    for row, body in ROWS.items():
        assert body["status"] in {"works", "first-form", "planned"}, row
        assert body["text"], row
        assert (body["status"] == "first-form") == ("later" in body), f"{row}: `later` belongs to first-form rows"
