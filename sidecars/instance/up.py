"""`up`: an instance that is as it should be, whatever there was before."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from netpolicy.errors import Exit, UserError
from sidecars import names, workspace
from sidecars.engine import Engine
from sidecars.instance.assess import OLDER, Facts
from sidecars.instance.listing import branch, describe
from sidecars.instance.making import Making
from sidecars.instance.model import InstanceInfo, InstanceSpec, Phase
from sidecars.instance.objects import BRANCH, ROOT, Objects, look, look_all
from sidecars.instance.phases import PHASES
from sidecars.instance.undo import Undo
from sidecars.journal import Journal
from sidecars.names import Name
from sidecars.progress import Reporter, Step, silent
from sidecars.project import Project
from sidecars.workspace import Source


def up(
    engine: Engine,
    project: Project,
    spec: InstanceSpec,
    reporter: Reporter = silent,
    *,
    journal: Journal | None = None,
) -> InstanceInfo:
    """Make an instance and prove its firewall, or bring one that exists up to date.

    On any failure, Ctrl-C or cancellation by the reporter, everything that this run has made is removed again; an instance that
    existed before stays as it was, or stopped where its firewall did not hold. Work in a workspace is never removed.

    Args:
        engine: Where it runs.
        project: The repository it is made of.
        spec: What is wanted.
        reporter: Told each step, in this thread.
        journal: For tests; None for the user's own.

    Returns:
        The instance, `ready` or `degraded` with the reasons.

    Raises:
        UserError: ``not-a-repository``, ``no-commits``, ``bad-name``, ``name-taken``, ``instance-busy``, ``image-missing``,
            ``subnets-exhausted``, ``firewall-breached``, ``gate-failed``, ``disk-full``, ..., with the key ``left_over`` in its
            details where something could not be removed.
    """
    journal = journal or Journal()
    if spec.name is not None:
        return _named(engine, project, spec, names.parse(spec.name), reporter, journal, None)
    # What is wrong with the repository is wrong under every name.
    source = workspace.inspect(project.root)
    taken = {name for _, name in look_all(engine, project.name)}
    for candidate in names.suggestions():
        if candidate in taken:
            continue
        try:
            return _named(engine, project, replace(spec, new=True), Name(candidate), reporter, journal, source)
        except UserError as error:
            if error.code != "name-taken":
                raise
            # Somebody else was quicker; the next one is as good.
            reporter(Step("name", f"{candidate} has just been taken"))
    raise AssertionError("the suggestions never end")


def _named(
    engine: Engine,
    project: Project,
    spec: InstanceSpec,
    name: Name,
    reporter: Reporter,
    journal: Journal,
    source: Source | None,
) -> InstanceInfo:
    making = Making(engine, project, spec, name, reporter, journal, Undo(reporter), Objects(), source)
    making.shortcomings += spec.shortcomings
    with ExitStack() as stack:
        _hold(stack, making)
        making.found = look(engine, project.name, name.text)
        _admit(making)
        if making.found.workspace is None and making.source is None:
            making.source = workspace.inspect(project.root, name.branch)
        if making.found.dev is None and engine.images.get(spec.image) is None:
            raise UserError(
                "image-missing",
                f"there is no image {spec.image}",
                hint="'cspace image build' makes it.",
                exit_status=Exit.MISSING,
            )
        return _make(making)


def _hold(stack: ExitStack, making: Making) -> None:
    """Be the only one of this user's processes that changes the instance."""
    spec, name = making.spec, making.name.text

    def waiting(holder: str) -> None:
        making.say("name", f"waiting for {holder}, which is changing {name}")

    seconds = 0.0 if spec.new else spec.wait_seconds
    try:
        stack.enter_context(making.journal.lock(making.key, seconds=seconds, waiting=waiting))
    except UserError as error:
        if error.code != "instance-busy" or not spec.new:
            raise
        raise taken(name, f"it is being changed by {making.journal.holder(making.key) or 'another process'}") from error


def _admit(making: Making) -> None:
    """Whether what is found may be brought up to date by this call."""
    found, name = making.found, making.name
    if not found:
        return
    if making.spec.new:
        raise taken(name.text, "an instance with this name exists")
    root, asked = found.labels.get(ROOT), found.labels.get(BRANCH)
    if root is not None and root != str(making.project.root):
        if not _moved(making, Path(root)):
            raise taken(name.text, f"it belongs to the checkout {root}")
        making.notes.append(
            f"it was made from {root}, which is not there any more; this checkout is taken for the same"
        )
    if name.branch is not None and asked != name.branch:
        raise taken(name.text, f"it was made for {f'the branch {asked}' if asked else 'no particular branch'}")


def _moved(making: Making, root: Path) -> bool:
    """Whether the checkout that an instance was made from has gone from where it was. Of another machine nothing is known."""
    try:
        return making.engine.local and not root.exists()
    except OSError:
        return False


def taken(name: str, why: str) -> UserError:
    """The error for a name that somebody else has."""
    return UserError(
        "name-taken",
        f"the name {name} is taken: {why}",
        hint="Choose another name, or none to get the next free one. 'cspace list' shows what there is.",
        exit_status=Exit.CONFLICT,
    )


def _make(making: Making) -> InstanceInfo:
    fresh, done = not making.found, False
    try:
        with making.undo as undo:
            for phase in PHASES:
                phase(making)
            info = _result(making)
            undo.keep()
        done = True
        if making.former is not None:
            making.engine.containers.remove(making.former.id)
    except UserError as error:
        if not fresh:
            if error.code == "firewall-breached":
                shut(making)
            making.journal.record(making.key, Phase.FAILED, [error.message])
        raise
    finally:
        if fresh and not done:
            _forget(making)
    making.journal.record(making.key, info.phase, info.reasons)
    return info


def shut(making: Making) -> None:
    """Stop an instance whose firewall did not hold, and lock its network. Its work stays."""
    for container in (making.dev, making.former):
        if container is not None:
            making.say("undo", f"stopping {container.name}")
            making.engine.containers.stop(container.id, 1)
    if making.network is not None:
        with making.gate() as client:
            client.attach(making.network.attachment(making.project.name, making.name.text))


def _forget(making: Making) -> None:
    if making.undo.leftovers:
        left = [f"{left.what} could not be removed: {left.reason}" for left in making.undo.leftovers]
        making.journal.record(making.key, Phase.FAILED, left)
    else:
        making.journal.forget(making.key)


def _result(making: Making) -> InstanceInfo:
    objects = look(making.engine, making.project.name, making.name.text)
    info = describe(
        making.project.name,
        making.name.text,
        Facts(objects, making.state, shortcomings=tuple(f"{OLDER}{text}" for text in making.shortcomings)),
        making.branch or branch(making.engine, objects),
    )
    return replace(info, notes=tuple(making.notes))
