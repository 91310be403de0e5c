"""The two images we build: what an instance runs in, and the gate. Their Dockerfiles are in ``lib/templates``.

`ensure` makes what is missing or out of date and leaves alone what is right; `drift` only looks. An image is right when its
label ``cspace.content`` is the hash of what it would be built from: template, our own sources, lock file, certificates.
"""

from sidecars.images.build import BuildOptions, ensure, ensure_all
from sidecars.images.recipe import GATE, INSTANCE, Recipe
from sidecars.images.staleness import Drift, drift

__all__ = ["GATE", "INSTANCE", "BuildOptions", "Drift", "Recipe", "drift", "ensure", "ensure_all"]
