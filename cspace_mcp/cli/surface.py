"""What the verbs share: their service, the options that several have, and printing."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspace_mcp.cli.progress import lines, live
from sidecars.progress import Reporter, silent

if TYPE_CHECKING:
    from cspace_mcp.host import HostService


def service() -> HostService:
    """The service for the project around the working directory. Nothing is looked at yet."""
    from cspace_mcp.host import HostService

    return HostService(Path.cwd(), os.environ)


def instance_argument(parser: argparse.ArgumentParser, help: str = "the instance", **options: Any) -> None:
    """NAME, an instance; shells complete it."""
    parser.add_argument("name", metavar="NAME", help=help, **options)


def json_option(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output, errors too")


def quiet_option(parser: argparse.ArgumentParser) -> None:
    """``--quiet``."""
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on standard error")


@contextmanager
def reporting(args: argparse.Namespace) -> Iterator[Reporter]:
    """Progress on standard error: one living line on a terminal, a line a step elsewhere, nothing when quiet."""
    if args.quiet:
        yield silent
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with live(sys.stderr) as report:
            yield report
    else:
        yield lines(sys.stderr)


def say(text: str = "") -> None:
    """One text for people, on standard output."""
    print(text)  # noqa: T201


def note(text: str) -> None:
    """One text for people that is not the answer, on standard error."""
    print(text, file=sys.stderr)  # noqa: T201


def answer(args: argparse.Namespace, document: Any, text: Callable[[], str]) -> None:
    """The answer, as JSON or for people."""
    say(json.dumps(document, ensure_ascii=False, indent=2) if args.json else text())
