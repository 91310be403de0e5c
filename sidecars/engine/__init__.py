"""The one door to Docker: the only room that imports its SDK. What leaves it is ours: dataclasses, streams, `UserError`.

`Engine` finds the engine (DOCKER_HOST, contexts, ssh) and has four parts: `containers` (with `containers.execs`), `networks`,
`volumes`, `images`. What the objects mean to instances is none of this room's business.
"""

from sidecars.engine.client import Engine, EngineInfo
from sidecars.engine.images import ImageInfo
from sidecars.engine.labels import CONTENT, IMAGE, INSTANCE, PROJECT, ROLE, VERSION, labels
from sidecars.engine.networks import BRIDGE_NAME, NetworkInfo, NetworkSpec, Subnet
from sidecars.engine.spec import ContainerInfo, ContainerSpec, Mount, Port
from sidecars.engine.streams import STDERR, STDOUT, ExecStream, Pipe
from sidecars.engine.volumes import VolumeInfo

__all__ = [
    "BRIDGE_NAME",
    "CONTENT",
    "IMAGE",
    "INSTANCE",
    "PROJECT",
    "ROLE",
    "STDERR",
    "STDOUT",
    "VERSION",
    "ContainerInfo",
    "ContainerSpec",
    "Engine",
    "EngineInfo",
    "ExecStream",
    "ImageInfo",
    "Mount",
    "NetworkInfo",
    "NetworkSpec",
    "Pipe",
    "Port",
    "Subnet",
    "VolumeInfo",
    "labels",
]
