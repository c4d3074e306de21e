"""What all tests share."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from hypothesis import settings

# How long an example takes is the machine's affair. The same examples each time, so that a change is what fails a run;
# `pytest --hypothesis-profile=explore` looks at others (`just soak` does).
settings.register_profile("gx", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("gx")

# Tests start hundreds of processes, each of which would compile all that it imports: half of the suite's time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell starts what it leaves in the background with Ctrl-C ignored, and what tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more worker than there are cores: many tests wait for processes that they started."""
    return (os.cpu_count() or 1) + 1
