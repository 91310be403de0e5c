"""What must be taken back when a start fails half-way: recorded before it is made, taken back in reverse.

    with Undo(reporter) as undo:
        undo.add("the network", "docker network rm ...", lambda: ...)
        make_the_network()
        ...
        undo.keep()

Leaving the block by any exception (an error, Ctrl-C, a reporter that cancels) takes everything back, each step on its own: one
that fails does not keep the others from running, and is told with the command that finishes it by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from netpolicy.errors import UserError
from sidecars.instance.signals import held
from sidecars.progress import Reporter, Step


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to take back. `act` must be content when the thing was never made."""

    what: str
    by_hand: str
    act: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that could not be taken back."""

    what: str
    by_hand: str
    reason: str


class Undo:
    """A stack of actions. Not for several threads."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._actions: list[Action] = []
        self.leftovers: list[Leftover] = []

    def add(self, what: str, by_hand: str, act: Callable[[], object]) -> None:
        """Record what is about to be made.

        Args:
            what: For people, e.g. ``the network cspace-shop-mercury``.
            by_hand: The command that does the same.
            act: Takes it back; raises UserError where it cannot.
        """
        self._actions.append(Action(what, by_hand, act))

    def keep(self) -> None:
        """All is well: nothing will be taken back."""
        self._actions.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not self._actions:
            return
        # Half a removal is worse than a second of patience.
        with held(deliver=False):
            self._unwind()
        if self.leftovers and isinstance(error, UserError):
            error.details["left_over"] = [{"what": left.what, "command": left.by_hand} for left in self.leftovers]
            commands = "; ".join(left.by_hand for left in self.leftovers)
            error.hint = " ".join(
                filter(None, [error.hint, f"Not everything could be removed; finish with: {commands}"])
            )

    def _unwind(self) -> None:
        if not self._actions:
            return
        action = self._actions.pop()
        try:
            # A reporter that cancels is asked again and raises again: that must not keep the action from running.
            self._say(f"removing {action.what}")
        finally:
            try:
                self._take_back(action)
            finally:
                self._unwind()

    def _take_back(self, action: Action) -> None:
        try:
            action.act()
        except UserError as error:
            self.leftovers.append(Leftover(action.what, action.by_hand, error.message))
            self._say(f"could not remove {action.what} ({error.message}); by hand: {action.by_hand}")

    def _say(self, message: str) -> None:
        self._reporter(Step("undo", message))
