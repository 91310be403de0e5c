"""Images of an engine."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any

from netpolicy.errors import UserError
from sidecars.engine.labels import selector
from sidecars.engine.longcalls import LongCalls, Message
from sidecars.engine.part import Part, moment

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image that the engine has."""

    id: str
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    created: datetime | None
    size: int
    """Bytes, shared layers included."""
    architecture: str


class Images(Part):
    """Find, pull, build, import and remove images. How our own images are made is in `sidecars.images`."""

    @property
    def _long(self) -> LongCalls:
        return LongCalls(self._engine)

    def get(self, name: str) -> ImageInfo | None:
        """The image with this name or id, None where there is none."""
        try:
            with self._explained(f"inspecting the image {name}"):
                api: Any = self._api
                found = api.inspect_image(name)
        except UserError as error:
            if error.code == "image-missing":
                return None
            raise
        return _info(found)

    def list(self, labels: Mapping[str, str | None] | None = None) -> list[ImageInfo]:
        """The images that carry all these labels (None as a value: any)."""
        with self._explained("listing images"):
            filters = {"label": selector(labels)} if labels else None
            found = {str(one["Id"]) for one in self._api.images(filters=filters)}
        return [info for one in sorted(found) if (info := self.get(one)) is not None]

    def pull(self, repository: str, tag: str) -> Generator[Message | None, None, None]:
        """Pull an image; yields the engine's messages (``status``, ``id``, ``progressDetail``), None while it is silent.

        Closing the iterator stops the pull. Raises ``registry-unreachable``, ``registry-denied``, ``image-missing``, ...
        """
        return self._long.messages(
            f"pulling {repository}:{tag}", lambda api: api.pull(repository, tag=tag, stream=True, decode=True)
        )

    def build(
        self,
        context: IO[bytes],
        tag: str,
        *,
        labels: Mapping[str, str],
        arguments: Mapping[str, str] | None = None,
        cache: bool = True,
    ) -> Generator[Message | None, None, None]:
        """Build an image from a tar archive; yields the engine's messages (``stream``, ``aux``), None while it is silent.

        Closing the iterator stops the build; the engine then removes the container of the step it was in.
        """

        def call(api: Any) -> Iterator[Message]:
            # `Any`: the stubs do not know that a build without timeout is asked for with None.
            yield from api.build(
                fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True, decode=True, nocache=not cache,
                labels=dict(labels), buildargs=dict(arguments or {}), timeout=None,
            )  # fmt: skip

        return self._long.messages(f"building the image {tag}", call)

    def load(
        self, archive: IO[bytes], repository: str, tag: str, changes: Sequence[str] = ()
    ) -> Generator[Message | None, None, None]:
        """Make an image of one layer out of a tar archive of a root file system (``docker import``)."""

        def call(api: Any) -> Iterator[Message]:
            # In parts, not as a file: the SDK announces chunks, and requests makes chunks only of an iterator.
            parts = iter(lambda: archive.read(_CHUNK), b"")
            answer = api.import_image_from_stream(parts, repository, tag, changes=list(changes))
            # Errors after the first byte arrive inside an answer that has status 200.
            for line in str(answer).splitlines():
                yield json.loads(line)

        return self._long.messages(f"importing {repository}:{tag}", call)

    def tag(self, name: str, repository: str, tag: str) -> None:
        """Give an image another name."""
        with self._explained(f"tagging {name} as {repository}:{tag}"):
            self._api.tag(name, repository, tag)

    def remove(self, name: str, *, force: bool = False) -> bool:
        """Remove an image (a tag, while it has others); False where it was not there. Raises ``image-in-use``."""
        try:
            with self._explained(f"removing the image {name}"):
                self._api.remove_image(name, force=force)
        except UserError as error:
            if error.code == "image-missing":
                return False
            raise
        return True


def _info(found: Mapping[str, Any]) -> ImageInfo:
    config = found.get("Config") or {}
    return ImageInfo(
        id=str(found["Id"]),
        tags=tuple(found.get("RepoTags") or ()),
        labels=dict(config.get("Labels") or {}),
        created=moment(found.get("Created")),
        size=int(found.get("Size", 0)),
        architecture=str(found.get("Architecture", "")),
    )
