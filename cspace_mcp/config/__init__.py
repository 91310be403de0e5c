"""`.cspace.json` and `.cspace.local.json`: merged, checked, every problem named at once.

Objects merge, lists and scalars replace; the local file wins. Keys exist here only when something obeys them. The
`firewall` object belongs to `netpolicy.policy`, which also says where the files are found.
"""

from __future__ import annotations

from cspace_mcp.config.host import HostSettings, host_settings
from cspace_mcp.config.load import Config, load, project_name
from cspace_mcp.config.model import Container, Document, Gate, ProjectSection

__all__ = [
    "Config",
    "Container",
    "Document",
    "Gate",
    "HostSettings",
    "ProjectSection",
    "host_settings",
    "load",
    "project_name",
]
