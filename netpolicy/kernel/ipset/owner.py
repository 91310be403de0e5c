"""One gate for each namespace: iptables has no owner, so a claim says that somebody looks after the rules."""

from __future__ import annotations

from dataclasses import dataclass, field

from netpolicy.errors import Exit, UserError
from netpolicy.kernel.claim import Claim
from netpolicy.kernel.netns import Namespace


@dataclass
class Owner:
    """The right to look after the rules of this name."""

    name: str
    namespace: Namespace
    _claim: Claim = field(init=False)

    def __post_init__(self) -> None:
        self._claim = Claim(f"netpolicy/ipset/{self.name}", self.namespace)

    def claim(self) -> None:
        """Take it, and keep it until `release`; again: no effect.

        Raises:
            UserError: ``table-owned``, where a process of root or of ours has it.
        """
        if not self._claim.take():
            raise UserError(
                "table-owned",
                f"the iptables rules {self.name} belong to another process that is running",
                hint="There is one gate for each host. Stop the other one, or use another table.",
                exit_status=Exit.CONFLICT,
            )

    def release(self) -> None:
        """Give it back."""
        self._claim.release()
