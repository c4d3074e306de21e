"""An iterator that is run in a thread, a few items ahead of whoever takes them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import NamedTuple, TypeVar

T = TypeVar("T")
LOOK_EVERY_S = 0.1
"""How soon the thread notices that nobody takes any more."""


class _End(NamedTuple):
    error: BaseException | None


def ahead(items: Iterable[T], most: int) -> Generator[T]:
    """The items in their order; up to `most` of them are made before they are asked for. What it raises is raised here.

    The thread ends when the items do, or soon after this iterator is closed.
    """
    ready: queue.Queue[T | _End] = queue.Queue(most)
    is_over = threading.Event()

    def put(item: T | _End) -> bool:
        while not is_over.is_set():
            try:
                ready.put(item, timeout=LOOK_EVERY_S)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are taken
            put(_End(error))
        else:
            put(_End(None))

    threading.Thread(target=run, name="ahead", daemon=True).start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        is_over.set()
