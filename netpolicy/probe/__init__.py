"""The verification battery: tries connections for real (`attempt`), and judges what came of it (`verification`).

What enters here: single attempts with an honest outcome, and pure judgements over them. Standard library only, so that the
same program runs on the host, in a namespace and in a container that has only `python3` (`source`).
"""

from __future__ import annotations

import sys
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
    "command",
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


_STARTER = """
import sys, types
root, start = sys.argv[1:3]
del sys.argv[1:3]
for name in ("netpolicy", "netpolicy.kernel", "netpolicy.operate", "netpolicy.probe", "netpolicy.run"):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [root + name.replace(".", "/")]
module, function = start.split(":")
__import__(module)
getattr(sys.modules[module], function)()
"""


def command(start: str = "netpolicy.probe.attempt:leave") -> list[str]:
    """The words that start the probe program on this machine; its arguments follow.

    Our packages are there in name only, so that of ours nothing but the probe's own modules is loaded: a third of the time.

    Args:
        start: ``module:function`` that is called; the module imports the standard library and modules without packages of theirs.
    """
    root = f"{Path(__file__).parents[2]}/"
    return [sys.executable, "-I", "-S", "-c", _STARTER, root, start]


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
