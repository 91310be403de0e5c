"""An egress firewall: allowlists of names and ranges in, verdicts and packets out. Knows no Docker and no MCP.

The surface for programs; everything is loaded when it is first used:

    policy = netpolicy.load(Path(".cspace.json"))
    ruleset = netpolicy.compile_policy(policy)
    verdict = netpolicy.decide(ruleset, netpolicy.parse_flow("github.com:443"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Not lazy: a module and its function share this name, and whoever imports the module would hide the function.
from netpolicy.decide import decide

if TYPE_CHECKING:
    from netpolicy.algebra import Counterexample as Counterexample
    from netpolicy.algebra import Difference as Difference
    from netpolicy.algebra import diff as diff
    from netpolicy.algebra import merge as merge
    from netpolicy.algebra import subset as subset
    from netpolicy.compile import compile_policy as compile_policy
    from netpolicy.errors import UserError as UserError
    from netpolicy.flow import Flow as Flow
    from netpolicy.flow import Verdict as Verdict
    from netpolicy.policy import Policy as Policy
    from netpolicy.policy import load as load
    from netpolicy.policy import parse_flow as parse_flow
    from netpolicy.ruleset import Ruleset as Ruleset

_HOME = {
    "Counterexample": "netpolicy.algebra",
    "Difference": "netpolicy.algebra",
    "Flow": "netpolicy.flow",
    "Policy": "netpolicy.policy",
    "Ruleset": "netpolicy.ruleset",
    "UserError": "netpolicy.errors",
    "Verdict": "netpolicy.flow",
    "compile_policy": "netpolicy.compile",
    "diff": "netpolicy.algebra",
    "load": "netpolicy.policy",
    "merge": "netpolicy.algebra",
    "parse_flow": "netpolicy.policy",
    "subset": "netpolicy.algebra",
}

__all__ = [
    "Counterexample",
    "Difference",
    "Flow",
    "Policy",
    "Ruleset",
    "UserError",
    "Verdict",
    "compile_policy",
    "decide",
    "diff",
    "load",
    "merge",
    "parse_flow",
    "subset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'netpolicy' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
