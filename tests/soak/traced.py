"""gx as it is, but for SIGUSR1: then it writes what every thread and every asyncio task waits for to stderr.

It is run by its path, as a script, so that nothing of the tests is imported beside gx.
"""

from __future__ import annotations

import asyncio
import faulthandler
import linecache
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from gx.cli.main import main


def _tell(number: int, frame: FrameType | None) -> None:
    """Where it hangs. The tasks first: the threads' stacks seldom say what a coroutine waits for."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # no loop runs now
        tasks = set()
    for task in tasks:
        sys.stderr.write(f"task {task.get_name()}:\n")
        for code, line in _awaited(task.get_coro()):
            source = linecache.getline(code, line).strip()
            sys.stderr.write(f"  {code}:{line}: {source}\n")
    sys.stderr.flush()
    faulthandler.dump_traceback(sys.stderr, all_threads=True)


def _awaited(coro: Any) -> Iterator[tuple[str, int]]:
    """File and line of a coroutine, of what it awaits, and so on."""
    while coro is not None:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "ag_frame", None) or getattr(coro, "gi_frame", None)
        if frame is None:
            return
        yield frame.f_code.co_filename, frame.f_lineno
        coro = getattr(coro, "cr_await", None) or getattr(coro, "ag_await", None) or getattr(coro, "gi_yieldfrom", None)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _tell)
    main()
