"""Names for what tests make on the machine's own engine, by which the next test removes what a killed one has left."""

from __future__ import annotations

from netpolicy.errors import UserError
from netpolicy.lab import ownership
from sidecars.engine import PROJECT, Engine


def fresh(engine: Engine) -> str:
    """A name nobody else has; also the project label of everything the test makes."""
    _collect(engine)
    return ownership.fresh()


def remove(engine: Engine, name: str) -> None:
    """Everything that carries the name as its project."""
    label = {PROJECT: name}
    for container in engine.containers.list(label):
        engine.containers.remove(container.id)
    for network in engine.networks.list(label):
        engine.networks.remove(network.id)
    for volume in engine.volumes.list(label):
        engine.volumes.remove(volume.name)
    for image in engine.images.list(label):
        engine.images.remove(image.id, force=True)


def _collect(engine: Engine) -> None:
    every = [
        *engine.containers.list({PROJECT: None}),
        *engine.networks.list({PROJECT: None}),
        *engine.volumes.list({PROJECT: None}),
    ]
    for name in {thing.labels[PROJECT] for thing in every}:
        if ownership.orphaned(name):
            try:
                remove(engine, name)
            except UserError as error:
                # Another session is at the same.
                if error.code not in ("engine-refused", "network-in-use", "volume-in-use"):
                    raise
