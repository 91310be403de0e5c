"""Volumes of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from netpolicy.errors import UserError
from sidecars.engine.labels import selector
from sidecars.engine.part import Part, moment


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A volume that exists."""

    name: str
    labels: Mapping[str, str]
    created: datetime | None


class Volumes(Part):
    """Make, find and remove volumes."""

    def create(self, name: str, labels: Mapping[str, str]) -> VolumeInfo:
        """Make a volume. One that exists is returned as it is, with the labels it has (the engine's own behaviour)."""
        with self._explained(f"creating the volume {name}"):
            return _info(self._api.create_volume(name, labels=dict(labels)))

    def get(self, name: str) -> VolumeInfo | None:
        """The volume with this name, None where there is none."""
        try:
            with self._explained(f"inspecting the volume {name}"):
                return _info(self._api.inspect_volume(name))
        except UserError as error:
            if error.code == "volume-missing":
                return None
            raise

    def list(self, labels: Mapping[str, str | None] | None = None) -> list[VolumeInfo]:
        """The volumes that carry all these labels (None as a value: any)."""
        with self._explained("listing volumes"):
            found = self._api.volumes(filters={"label": selector(labels)} if labels else None)
            return [_info(one) for one in found.get("Volumes") or []]

    def remove(self, name: str) -> bool:
        """Remove a volume and what is in it; False where it was not there. Raises ``volume-in-use``."""
        try:
            with self._explained(f"removing the volume {name}"):
                self._api.remove_volume(name)
        except UserError as error:
            if error.code == "volume-missing":
                return False
            raise
        return True


def _info(found: Mapping[str, Any]) -> VolumeInfo:
    return VolumeInfo(
        name=str(found["Name"]),
        labels=dict(found.get("Labels") or {}),
        created=moment(found.get("CreatedAt")),
    )
