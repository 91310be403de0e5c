"""The frame of a command line: verbs loaded only when used, one place that turns errors into exit statuses.

A verb is a module with ``configure(parser)`` and ``run(args) -> int``. `--json` is the verb's own option; where it is set,
errors are printed as one JSON object on standard output, ``{"error": {"code", "message", "hint", "details"}}``; otherwise as
text on standard error.

SIGTERM and SIGHUP end a verb the way Ctrl-C does, so that what it was making is taken back. What escapes a verb as another
exception than `UserError` is either the machine's trouble (disk full, no permission) or a defect of ours, and is told as such.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

from netpolicy.errors import Exit, UserError


@dataclass(frozen=True, slots=True)
class Verb:
    """One word of a command line."""

    name: str
    module: str
    """Imported only when the verb is used or asked for help."""
    help: str
    """One line, lower case, no full stop."""


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP has come. A KeyboardInterrupt, because it asks for the same: take back what is half-made, and end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


#: System errors that say something about the machine, not about our code.
_MACHINE = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
    }
)


#: Seconds until a dropped signal is sent anew: longer than a finalizer takes.
_ANEW_SECONDS = 0.02


class _Parser(argparse.ArgumentParser):
    """Usage errors become `UserError`, so that `--json` holds for them as well."""

    def error(self, message: str) -> NoReturn:
        raise UserError(
            "usage", f"{self.prog}: {message}", hint=f"See '{self.prog} --help'.", exit_status=Exit.BAD_INPUT
        )


@dataclass(frozen=True, slots=True)
class Program:
    """A program with verbs."""

    name: str
    summary: str
    version: str
    verbs: tuple[Verb, ...]

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run one command line; returns the exit status and raises nothing."""
        words = list(sys.argv[1:] if argv is None else argv)
        as_json = _wants_json(words)
        try:
            with _ended_by_signals():
                return self._dispatch(words)
        except UserError as error:
            return _told(error, as_json)
        except SystemExit as end:
            # argparse has answered --help.
            return end.code if isinstance(end.code, int) else Exit.OK
        except KeyboardInterrupt as stop:
            return _told(UserError("interrupted", "interrupted", exit_status=128 + _number(stop)), as_json)
        except BrokenPipeError:
            # The reader has gone (`| head`); nothing more can be said, and Python would complain again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        except Exception as error:  # noqa: BLE001  # the last door: a traceback's own status, 1, would mean "denied"
            return _told(_unexpected(self.name, error), as_json)

    def _dispatch(self, words: list[str]) -> int:
        if not words or words[0] in ("-h", "--help", "help"):
            print(self._overview())  # noqa: T201
            return Exit.OK if words else Exit.BAD_INPUT
        if words[0] in ("-V", "--version"):
            print(f"{self.name} {self.version}")  # noqa: T201
            return Exit.OK
        verb = next((v for v in self.verbs if v.name == words[0]), None)
        if verb is None:
            raise self._unknown(words[0])
        parser = self.parser(verb)
        args = parser.parse_args(words[1:])
        status: int = _module(verb).run(args)
        return status

    def parser(self, verb: Verb) -> argparse.ArgumentParser:
        """The verb's own parser (completion and the documentation's tests read it too)."""
        module = _module(verb)
        parser = _Parser(
            prog=f"{self.name} {verb.name}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.configure(parser)
        return parser

    def _overview(self) -> str:
        width = max(len(v.name) for v in self.verbs)
        rows = "\n".join(f"  {v.name:<{width}}  {v.help}" for v in self.verbs)
        return (
            f"{self.name}: {self.summary}\n\nusage: {self.name} VERB [OPTIONS]\n\n{rows}\n\n"
            f"'{self.name} VERB --help' says more of each. Exit statuses: docs/exit-codes.md."
        )

    def _unknown(self, word: str) -> UserError:
        import difflib

        near = difflib.get_close_matches(word, [v.name for v in self.verbs], n=1)
        hint = f"Did you mean '{self.name} {near[0]}'?" if near else f"See '{self.name} --help'."
        return UserError("usage", f"{self.name}: unknown verb {word!r}", hint=hint, exit_status=Exit.BAD_INPUT)


def _told(error: UserError, as_json: bool) -> int:
    render(error, as_json=as_json)
    return error.exit_status


def _unexpected(program: str, error: Exception) -> UserError:
    """The machine's trouble in its own words; anything else is ours, and its traceback goes to standard error first."""
    if isinstance(error, OSError) and error.errno in _MACHINE:
        where = f"{error.filename}: " if error.filename else ""
        return UserError("system", f"{where}{error.strerror}", details={"errno": errno.errorcode[error.errno]})
    import traceback

    traceback.print_exception(error)
    return UserError(
        "defect",
        f"{type(error).__name__}: {error}",
        hint=f"This is a defect of {program}, not of yours. Please report it with the lines above.",
        exit_status=Exit.DEFECT,
    )


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Ended` in the block, unless they are ignored (nohup) or we are not the main thread."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise Ended(number)

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    hook = sys.unraisablehook

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if isinstance(what.exc_value, KeyboardInterrupt):
            _send_anew(what.exc_value)
        else:
            hook(what)

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _send_anew(stop: KeyboardInterrupt) -> None:
    """An interrupt that comes while Python runs a finalizer is dropped there; it must come once more, after that."""
    again = threading.Timer(_ANEW_SECONDS, os.kill, (os.getpid(), _number(stop)))
    again.daemon = True
    again.start()


def _number(stop: KeyboardInterrupt) -> int:
    return stop.number if isinstance(stop, Ended) else signal.SIGINT


def render(error: UserError, *, as_json: bool) -> None:
    """Print an error once, where the caller of this surface looks for it."""
    if as_json:
        print(json.dumps({"error": error.as_dict()}, ensure_ascii=False))  # noqa: T201
    else:
        print(f"error: {error.as_text()}", file=sys.stderr)  # noqa: T201


def _wants_json(words: list[str]) -> bool:
    own = words[: words.index("--")] if "--" in words else words
    return "--json" in own


def _module(verb: Verb) -> Any:
    return importlib.import_module(verb.module)
