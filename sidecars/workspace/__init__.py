"""The repository inside an instance: how history gets in, and what would be lost if it went away.

Plain git on the host and in the container; history crosses as a bundle on a byte stream. Nothing here needs the network or
knows Docker: whoever can run a program on the other side is a `Box`.
"""

from sidecars.workspace.box import Box, Ended
from sidecars.workspace.bundle import bundled
from sidecars.workspace.clone import Cloned, clone, exists
from sidecars.workspace.source import Source, inspect
from sidecars.workspace.unsaved import Unsaved, unsaved

__all__ = ["Box", "Cloned", "Ended", "Source", "Unsaved", "bundled", "clone", "exists", "inspect", "unsaved"]
