"""What Ctrl-C does in a command: at first and at last it ends the process at once, between them it unwinds.

Python's own answer, an exception, shows a traceback if it comes before somebody can catch it or when nobody does any
more. It may also vanish, or become another error, where it comes while a module loads. Nothing is open at such a moment
that a kill would harm. To be told to go (SIGTERM) is what Ctrl-C is, even where a shell has that one ignored; what the
caller had ignored stays so.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # the module `signal` has enums, which take 4 ms to load
import os
from types import FrameType

STATUS = 130
"""Of a command that a Ctrl-C ended: 128 and the signal's number, as shells have it; `output.ExitCode` says it too."""


def leave_at_once() -> None:
    """From now on a Ctrl-C ends the process: nothing was begun, or all is done, and nobody would catch an exception."""
    _answer(_leave, _leave)


def unwind() -> None:
    """From now on a Ctrl-C raises KeyboardInterrupt; while modules load it still ends the process."""
    _answer(_interrupted, _terminated)


def hand_over() -> None:
    """Let an event loop answer: asyncio does so where it finds Python's own handler. All modules are loaded by now."""
    _answer(signal.default_int_handler, _terminated)


def _answer(on_interrupt: object, on_terminate: object) -> None:
    for number, answer in ((signal.SIGINT, on_interrupt), (signal.SIGTERM, on_terminate)):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, answer)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(STATUS)


def _interrupted(number: int, frame: FrameType | None) -> None:
    if _is_loading(frame):
        _leave(number, frame)
    raise KeyboardInterrupt


def _terminated(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else _interrupted)(signal.SIGINT, frame)


def _is_loading(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
