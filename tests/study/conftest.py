"""Where the workers of made-up studies find what they are to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from study.fake_study import Fake


@pytest.fixture(autouse=True)
def _workers_find_the_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in paths if p))


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., Fake]:
    """Studies, each in a folder of its own."""
    return lambda **more: Fake(tmp_path / str(len(list(tmp_path.iterdir()))), **more)
