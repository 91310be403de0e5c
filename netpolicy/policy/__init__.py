"""The policy language: JSON or TOML in, a checked `Policy` out, or one error with everything that is wrong (docs/policy.md).

What enters here: the grammar, its messages, and where a policy is found. Pure but for reading files. What a policy means for
addresses and packets is `netpolicy.compile`'s business.
"""

from __future__ import annotations

from netpolicy.policy.files import Layers, find
from netpolicy.policy.loading import load
from netpolicy.policy.model import Dns, HostAccess, Policy, Rule, Verify
from netpolicy.policy.parsing import parse
from netpolicy.policy.problems import Problem, Refused
from netpolicy.policy.question import parse_flow
from netpolicy.policy.rules import VARIABLE
from netpolicy.policy.target import Target

__all__ = [
    "VARIABLE",
    "Dns",
    "HostAccess",
    "Layers",
    "Policy",
    "Problem",
    "Refused",
    "Rule",
    "Target",
    "Verify",
    "find",
    "load",
    "parse",
    "parse_flow",
]
