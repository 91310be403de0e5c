"""The one error type that people and programs see, in every package of the kit.

Anything a user can cause or cure is raised as `UserError`. It is rendered in exactly one place per surface: `netpolicy.cli`
and `cspace_mcp.cli` (text or JSON plus an exit status), and `cspace_mcp.server` (a tool error). Everything else that escapes
is a defect of ours and is shown as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Exit:
    """Exit statuses, one table for both programs (docs/exit-codes.md)."""

    OK = 0
    DENIED = 1
    BAD_INPUT = 2
    MISSING = 3
    CONFLICT = 4
    FAILED = 5
    DEFECT = 70
    INTERRUPTED = 130


class UserError(Exception):
    """An error with a stable code, a message that names the culprit, and a hint that says what would be right.

    Args:
        code: Stable, lower-case, dash-separated identifier, e.g. ``bad-policy``. Programs match on it.
        message: One sentence naming what is wrong and where (file, key, value).
        hint: What to do next; a command to type where there is one.
        exit_status: One of `Exit`; what a command line returns for it.
        details: JSON-compatible extra fields, e.g. ``{"problems": [...]}``.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        exit_status: int = Exit.FAILED,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.exit_status = exit_status
        self.details: dict[str, Any] = dict(details or {})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the keyword fields (errors cross process borders in test runners)."""
        state = (type(self), self.code, self.message, self.hint, self.exit_status, self.details)
        return (_rebuild, state)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, the same on every surface."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.hint:
            body["hint"] = self.hint
        if self.details:
            body["details"] = self.details
        return body

    def as_text(self) -> str:
        """The form for a terminal: message, then the hint on its own line."""
        return self.message if not self.hint else f"{self.message}\n  {self.hint}"


def _rebuild(
    cls: type[UserError], code: str, message: str, hint: str | None, exit_status: int, details: dict[str, Any]
) -> UserError:
    error = cls.__new__(cls)
    UserError.__init__(error, code, message, hint=hint, exit_status=exit_status, details=details)
    return error
