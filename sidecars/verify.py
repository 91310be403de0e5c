"""Prove an instance's firewall: the same probes from inside it and from the unfiltered side, judged together.

Inside is the dev container, the unfiltered side is the gate's container (it is on the host's network). The probe program is fed
to the image's own ``python3`` on standard input, so nothing that was changed in the container takes part.

A blocked name is not even answered inside, which says nothing of the packet filter. So where the host reached it, the address it
was reached at is tried from inside as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from dataclasses import replace

from netpolicy import probe
from netpolicy.decide import decide
from netpolicy.errors import Exit, UserError
from netpolicy.flow import Flow
from netpolicy.probe import ProbeResult, VerificationReport
from netpolicy.probe.verification import Plan, Settings
from netpolicy.ruleset import Ruleset
from sidecars.engine import Engine
from sidecars.progress import Reporter, Step
from sidecars.watched import BEAT_SECONDS, Watched

#: Beyond the probes' own deadline: starting the program and carrying its answer.
_GRACE_SECONDS = 20.0
#: A project sets its container's variables, and these would have its own code loaded into the probe.
_PLAIN = dict.fromkeys(("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GLIBC_TUNABLES", "GCONV_PATH", "HOSTALIASES"), "")

Results = dict[str, ProbeResult]


def verify(
    engine: Engine,
    *,
    inside: str,
    control: str,
    ruleset: Ruleset,
    settings: Settings,
    permits: Callable[[Flow], bool],
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
        permits: Whether the gate lets a flow pass now, by what it has learned as well (an address can serve several names).
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
    report = _round(engine, inside, control, plan, permits, watched, seconds)
    if any(proof.state == "failed" for proof in report.allowed) and report.state != "breached":
        # What the host reaches and the inside does not is either our fault or a moment's; a moment does not last.
        report = _round(engine, inside, control, plan, permits, watched, seconds)
    return report


def _round(
    engine: Engine,
    inside: str,
    control: str,
    plan: Plan,
    permits: Callable[[Flow], bool],
    watched: Watched,
    seconds: float,
) -> VerificationReport:
    if not plan.targets:
        return probe.judge(plan, {}, {})
    found_inside, found_control = _together(
        watched, [(engine, inside, plan.targets, seconds), (engine, control, plan.targets, seconds)]
    )
    literals = dict(_literals(plan, found_control))
    closed = [text for text in literals if not permits(probe.flow_of(text))]
    if closed:
        (more,) = _together(watched, [(engine, inside, closed, seconds)])
        found_inside |= more
        found_control |= {text: literals[text] for text in closed}
        plan = replace(plan, blocked=(*plan.blocked, *closed))
    return probe.judge(plan, found_control, found_inside)


def _literals(plan: Plan, control: Results) -> Iterator[tuple[str, ProbeResult]]:
    """Blocked targets again, by the address at which the host has just reached them."""
    for target in plan.blocked:
        result, wanted = control.get(target), probe.parse(target)
        if result is not None and result.reached and result.address is not None and result.address != wanted.host:
            port = "" if wanted.protocol == "icmp" else f":{wanted.port}"
            host = f"[{result.address}]" if ":" in result.address else result.address
            text = f"{host}{port}/{wanted.protocol}"
            yield text, result._replace(target=text)


def _together(watched: Watched, work: Sequence[tuple[Engine, str, list[str], float]]) -> list[Results]:
    pool = ThreadPoolExecutor(len(work))
    try:
        return [_wait(job, watched) for job in [pool.submit(_probe, *arguments) for arguments in work]]
    finally:
        # Who cancels does not wait for the probes; they end by their own deadline.
        pool.shutdown(wait=False, cancel_futures=True)


def _wait(job: Future[Results], watched: Watched) -> Results:
    while True:
        try:
            return job.result(timeout=BEAT_SECONDS)
        except StillRunning:
            watched.beat()


def _probe(engine: Engine, container: str, targets: list[str], seconds: float) -> Results:
    argv = ["/usr/bin/python3", "-I", "-", "--seconds", f"{seconds:g}", *targets]
    done = engine.containers.execs.run(
        container, argv, stdin=probe.source().encode(), env=_PLAIN, seconds=seconds + _GRACE_SECONDS, ok=(0, 1)
    )
    return {result.target: result for result in probe.results(done.text)}
