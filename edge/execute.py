"""The only way a turn runs, on a laptop or in a container.

It knows how a turn can go wrong; it doesn't know who asked for it, or how the outcome travels.

Invariant: `execute` always returns an outcome. An exception never leaves it.
"""

from __future__ import annotations

import threading
import traceback

from edge.agent import Emit, take_turn
from edge.choose import choose
from edge.engine.engine import failure_of
from edge.engine.front import Front
from gx.core.errors import GxError
from gx.core.message import Failure, Outcome, Turn


async def execute(turn: Turn, emit: Emit, *, front: Front, cancelled: threading.Event | None = None) -> Outcome:
    """Run a turn: an `Answer`, or a `Failure` that says why there is none.

    `emit` gets previews of the text, the first one as the engine begins. `cancelled`, once set, ends the turn between
    two tokens. An exception that nobody foresaw becomes the failure "internal", with its traceback.
    """
    if turn.tools:
        names = ", ".join(f'"{tool.name}"' for tool in turn.tools)
        message = f"this turn brings tools ({names}), and agents can't call tools yet; take them out of the recipe"
        return Failure(code="unsupported", message=message, retryable=False)
    try:
        cancelled = cancelled or threading.Event()
        if turn.choice is not None:
            return await choose(turn, emit, front=front, cancelled=cancelled)
        return await take_turn(turn, emit, front=front, cancelled=cancelled)
    except GxError as error:
        return failure_of(error)
    except Exception as error:  # noqa: BLE001 - the boundary where exceptions become values
        message = f"{type(error).__name__}: {error}"
        return Failure(code="internal", message=message, retryable=True, detail=traceback.format_exc())
