"""Planes for the loopback's tests: a calm one for a module, a troubled one for a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cloud.loopback.faults import Faults
from tests.cloud.world import World, world


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A plane without faults and the app of the tests on it, shared by a module."""
    with world(tmp_path_factory.mktemp("calm")) as made:
        made.deploy()
        yield made


@pytest.fixture
def troubled(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes a plane with faults and deploys the app of the tests on it."""
    with ExitStack() as exits:

        def make(faults: Faults, **options: object) -> World:
            made = exits.enter_context(world(tmp_path / "plane", faults=faults, **options))
            made.deploy()
            return made

        yield make
