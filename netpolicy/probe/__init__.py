"""The verification battery: tries connections for real (`attempt`), and judges what came of it (`verification`).

What enters here: single attempts with an honest outcome, and pure judgements over them. Standard library only, so that the
same program runs on the host, in a namespace and in a container that has only `python3` (`source`).
"""

from __future__ import annotations

from pathlib import Path

from netpolicy.probe import attempt, resolving, target, verification
from netpolicy.probe.attempt import ProbeResult, probe, probe_all
from netpolicy.probe.target import Target, parse
from netpolicy.probe.verification import Plan, Proof, VerificationReport, flow_of, judge, plan

__all__ = [
    "Plan",
    "ProbeResult",
    "Proof",
    "Target",
    "VerificationReport",
    "flow_of",
    "judge",
    "parse",
    "plan",
    "probe",
    "probe_all",
    "results",
    "source",
    "verification",
]


#: The modules of the probe program, each after those it imports.
_PROGRAM = (target, resolving, attempt)
_LOADER = """
import sys, types
for name in ("netpolicy", "netpolicy.probe"):
    sys.modules[name] = types.ModuleType(name)
for name, text in MODULES:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
module.leave()
"""


def source() -> str:
    """The text of the probe program, to be fed to ``python3 - TARGET...`` where the kit is not installed."""
    texts = [(module.__name__, Path(str(module.__file__)).read_text(encoding="utf-8")) for module in _PROGRAM]
    return f"MODULES = {texts!r}\n{_LOADER}"


def results(output: str) -> list[ProbeResult]:
    """Read what the probe program printed: one JSON object a line. Lines that are not results are left out."""
    import json

    found = []
    for line in output.splitlines():
        try:
            found.append(ProbeResult(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found
