"""Prove an instance's firewall: the same probes from inside it and from the unfiltered side, judged together.

Inside is the dev container, the unfiltered side is the gate's container (it is on the host's network). The probe program is fed
to ``python3`` on standard input, so nothing that was installed or changed in the container takes part.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from contextlib import closing

from netpolicy import probe
from netpolicy.decide import decide
from netpolicy.errors import Exit, UserError
from netpolicy.probe import ProbeResult, VerificationReport
from netpolicy.probe.verification import Plan, Settings
from netpolicy.ruleset import Ruleset
from sidecars.engine import Engine
from sidecars.progress import Reporter, Step
from sidecars.watched import BEAT_SECONDS, Watched

#: Beyond the probes' own deadline: starting the program and carrying its answer.
_GRACE_SECONDS = 20.0

Results = dict[str, ProbeResult]


def verify(
    engine: Engine,
    *,
    inside: str,
    control: str,
    ruleset: Ruleset,
    settings: Settings,
    reporter: Reporter,
    seconds: float = 5.0,
) -> VerificationReport:
    """Probe and judge. Changes nothing.

    Args:
        engine: Where both containers are.
        inside: The container behind the firewall.
        control: A container on the host's network.
        ruleset: What is in force; targets that it contradicts are left out and named in the report.
        settings: The targets.
        reporter: Told each second; may raise to cancel.
        seconds: For each round of probes.

    Raises:
        UserError: ``bad-verify`` for a target that cannot be read, or as the engine when a probe cannot be run.
    """
    try:
        plan = probe.plan(settings, lambda flow: decide(ruleset, flow).allowed)
    except ValueError as error:
        raise UserError("bad-verify", f"firewall.verify: {error}", exit_status=Exit.BAD_INPUT) from error
    watched = Watched(
        reporter, Step("verify", f"trying {', '.join(plan.targets) or 'nothing'} from inside and from the host")
    )
    report = _round(engine, inside, control, plan, watched, seconds)
    if any(proof.state == "failed" for proof in report.allowed) and report.state != "breached":
        # What the host reaches and the inside does not is either our fault or a moment's; a moment does not last.
        report = _round(engine, inside, control, plan, watched, seconds)
    return report


def _round(
    engine: Engine, inside: str, control: str, plan: Plan, watched: Watched, seconds: float
) -> VerificationReport:
    if not plan.targets:
        return probe.judge(plan, {}, {})
    pool = ThreadPoolExecutor(2)
    with closing(_Pool(pool)):
        jobs = [pool.submit(_probe, engine, container, plan.targets, seconds) for container in (inside, control)]
        found_inside, found_control = (_wait(job, watched) for job in jobs)
    return probe.judge(plan, found_control, found_inside)


class _Pool:
    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def close(self) -> None:
        # Who cancels does not wait for the probes; they end by their own deadline.
        self._pool.shutdown(wait=False, cancel_futures=True)


def _wait(job: Future[Results], watched: Watched) -> Results:
    while True:
        try:
            return job.result(timeout=BEAT_SECONDS)
        except StillRunning:
            watched.beat()


def _probe(engine: Engine, container: str, targets: list[str], seconds: float) -> Results:
    argv = ["python3", "-I", "-", "--seconds", f"{seconds:g}", *targets]
    done = engine.containers.execs.run(
        container, argv, stdin=probe.source().encode(), seconds=seconds + _GRACE_SECONDS, ok=(0, 1)
    )
    return {result.target: result for result in probe.results(done.text)}
