"""Building our images: only what is missing or out of date, one build at a time, with progress that people can read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from netpolicy.clock import Clock, SystemClock
from netpolicy.errors import UserError
from sidecars.engine import CONTENT, IMAGE, ROLE, VERSION, Engine, ImageInfo
from sidecars.images.base import BASE, ensure_base
from sidecars.images.certificates import host_certificates
from sidecars.images.context import Context, collect
from sidecars.images.narration import Narration
from sidecars.images.recipe import GATE, INSTANCE, Recipe, our_version
from sidecars.journal import Journal, Key, state_folder
from sidecars.progress import Reporter, Step, silent

_LONGEST_BUILD_SECONDS = 3600.0
#: Reasons why a build fails that are the network's, not the sources'.
_OFFLINE = frozenset({"build-offline", "build-untrusted", "base-missing"})
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What a user can choose about the images."""

    certificates: tuple[Path, ...] = ()
    """Files with further certificates to trust, beside the host's own."""
    base: str = BASE
    """The image to start from: Debian trixie, or something made from it."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """Values for the Dockerfile's ARGs, e.g. ``NPM_REGISTRY``."""
    keep_stale: bool = False
    """Use an image that is there, even if it is out of date."""


def ensure_all(
    engine: Engine,
    reporter: Reporter = silent,
    options: BuildOptions | None = None,
    *,
    force: bool = False,
    older: Callable[[str], object] | None = None,
) -> tuple[ImageInfo, ImageInfo]:
    """Have both images; returns (instance, gate). See `ensure`."""
    return (
        ensure(engine, INSTANCE, reporter, options, force=force, older=older),
        ensure(engine, GATE, reporter, options, force=force, older=older),
    )


def ensure(
    engine: Engine,
    recipe: Recipe,
    reporter: Reporter = silent,
    options: BuildOptions | None = None,
    *,
    force: bool = False,
    older: Callable[[str], object] | None = None,
    clock: Clock | None = None,
) -> ImageInfo:
    """Have one image, built from what is installed here; an image that is right is left alone.

    Args:
        engine: Where it is built.
        recipe: `INSTANCE` or `GATE`.
        reporter: Told each step; may raise to stop the build.
        options: See `BuildOptions`.
        force: Build anew from nothing, e.g. for newer Debian packages.
        older: Told, in a sentence, that an image that is out of date is used because the network keeps it from being built anew.
            None: that is an error.
        clock: For tests.

    Raises:
        UserError: ``build-failed`` with its last lines and the path of its log, ``disk-full``, ``base-missing``, ...
    """
    options = options or BuildOptions()
    if options.keep_stale and not force and (found := engine.images.get(recipe.name)) is not None:
        return found
    context, wanted = planned(recipe, options)
    if not force and (found := current(engine, recipe, wanted)) is not None:
        return found
    with _alone(engine, recipe, reporter):
        # Whoever held the lock before us has perhaps built exactly this.
        if not force and (found := current(engine, recipe, wanted)) is not None:
            return found
        try:
            ensure_base(engine, reporter, options.base, clock=clock)
            _build(engine, recipe, context, wanted, reporter, options, cache=not force, clock=clock or SystemClock())
        except UserError as error:
            found = engine.images.get(recipe.name)
            if older is None or force or found is None or error.code not in _OFFLINE:
                raise
            why = f"{recipe.repository} is out of date and could not be built anew: {error.message.splitlines()[0]}"
            reporter(Step("image", f"{why}; the one that is there is used"))
            older(why)
            return found
        made = engine.images.get(recipe.name)
        if made is None:
            raise UserError("build-failed", f"the engine says it has built {recipe.name}, but does not have it")
        _forget(engine, recipe)
    return made


def planned(recipe: Recipe, options: BuildOptions) -> tuple[Context, str]:
    """The context of an image, and the content hash that its label would carry."""
    context = collect(recipe, host_certificates(options.certificates))
    arguments = [f"{key}={value}" for key, value in sorted(options.arguments.items())]
    return context, context.hash(options.base, *arguments)


def current(engine: Engine, recipe: Recipe, wanted: str) -> ImageInfo | None:
    """The image, if it is there and has the wanted content."""
    found = engine.images.get(recipe.name)
    return found if found is not None and found.labels.get(CONTENT) == wanted else None


def _alone(engine: Engine, recipe: Recipe, reporter: Reporter) -> AbstractContextManager[None]:
    """One build of an image at a time: a second would do the same work again and only slow down the first."""
    step = Step("image", f"waiting for another build of {recipe.repository} to end")
    key = Key(str(engine.address), "images", recipe.repository)
    return Journal().lock(key, seconds=_LONGEST_BUILD_SECONDS, waiting=lambda _holder: reporter(step))


def _build(
    engine: Engine,
    recipe: Recipe,
    context: Context,
    wanted: str,
    reporter: Reporter,
    options: BuildOptions,
    *,
    cache: bool,
    clock: Clock,
) -> None:
    labels = {ROLE: "image", IMAGE: recipe.repository, VERSION: our_version(), CONTENT: wanted}
    arguments = {**_proxies(os.environ), "BASE": options.base, **options.arguments}
    with _log(recipe) as log:
        narration = Narration(recipe.repository, context.dockerfile, reporter, clock, log)
        messages = engine.images.build(context.archive(), recipe.name, labels=labels, arguments=arguments, cache=cache)
        with closing(messages):
            try:
                for message in messages:
                    narration.hear(message)
            except UserError as error:
                raise narration.failure(error) from error


@contextmanager
def _log(recipe: Recipe) -> Iterator[Path | None]:
    """Where the build's whole output goes; None where nothing can be written (the build does not depend on it)."""
    path = state_folder(os.environ) / "log" / f"build-{recipe.repository}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(b"")
    except OSError:
        yield None
    else:
        yield path


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """The proxies of this machine, for builds; the engine knows these arguments without ARG. Not those on loopback."""
    found = {}
    for name in (*_PROXIES, *map(str.upper, _PROXIES)):
        value = environ.get(name, "")
        if value and not any(local in value for local in ("://127.", "://localhost", "://[::1]")):
            found[name] = value
    return found


def _forget(engine: Engine, recipe: Recipe) -> None:
    """Remove earlier builds of an image, which have lost their name; not those that something still runs on."""
    for image in engine.images.list({IMAGE: recipe.repository}):
        if not image.tags:
            try:
                engine.images.remove(image.id)
            except UserError as error:
                if error.code != "image-in-use":
                    raise
