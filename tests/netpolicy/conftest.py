"""The netpolicy tests have caches of their own, with a provider's list fetched just now: what is old would be said everywhere."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from netpolicy import presets
from netpolicy.presets import copies
from netpolicy.presets.copies import Copy


@pytest.fixture(scope="session", autouse=True)
def fresh_lists(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for name in presets.provided():
            path, shipped = copies.place(name), presets.current(name)
            assert path is not None
            copies.write(path, Copy(shipped.source, time.time(), shipped.lists))
        yield
