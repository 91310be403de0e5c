"""Images that are not what the installed version would build."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sidecars.engine import CONTENT, VERSION, Engine
from sidecars.images.build import BuildOptions, planned
from sidecars.images.recipe import GATE, INSTANCE, Recipe, our_version

Kind = Literal["missing", "version", "content"]


@dataclass(frozen=True, slots=True)
class Drift:
    """One image that is not as it should be."""

    image: str
    kind: Kind
    found: str | None
    """The version that the image was built from; None where there is none."""
    wanted: str

    def __str__(self) -> str:
        match self.kind:
            case "missing":
                return f"{self.image} is not built yet"
            case "version":
                return f"{self.image} was built from version {self.found or 'unknown'}, installed is {self.wanted}"
            case "content":
                return f"{self.image} was built from other sources or certificates of version {self.wanted}"


def drift(
    engine: Engine, options: BuildOptions | None = None, recipes: tuple[Recipe, ...] = (INSTANCE, GATE)
) -> list[Drift]:
    """The images that `sidecars.images.ensure` would build; an empty list when all is well. Changes nothing."""
    wanted = our_version()
    out: list[Drift] = []
    for recipe in recipes:
        found = engine.images.get(recipe.name)
        if found is None:
            out.append(Drift(recipe.repository, "missing", None, wanted))
        elif found.labels.get(VERSION) != wanted:
            out.append(Drift(recipe.repository, "version", found.labels.get(VERSION), wanted))
        elif found.labels.get(CONTENT) != planned(recipe, options or BuildOptions())[1]:
            out.append(Drift(recipe.repository, "content", wanted, wanted))
    return out
