"""A cache of second moments for these tests alone."""

from pathlib import Path

import pytest

from palimpsest.edit import moments


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Moments go to a temporary folder (smollm2's converted weights stay where they are)."""
    folder = tmp_path_factory.getbasetemp() / "palimpsest-cache"
    monkeypatch.setattr(moments, "cache_folder", lambda: folder)
    return folder
