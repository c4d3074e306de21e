"""What a run that computes is told of its machine: a GPU that lies idle, and memory that everything waits for.

Facts are `machine`'s; what is said of a model is its worker's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio

from edge.slowness import is_gpu_build
from gx.node import machine

EVERY_S = 30.0
ON_CPU = "all layers run on the CPU, most often ten times as slowly or worse"
STALLED_PERCENT = 10.0
"""Of a minute: what a run is told of. `gx doctor`, which is asked, tells of less."""


def idle_gpu(build: str, seen: str) -> str | None:
    """That the engine's build leaves a GPU idle which was seen, in a sentence."""
    if not seen or not build or is_gpu_build(build):
        return None
    return (
        f"the engine was built without a GPU, and this machine has one ({seen}): {ON_CPU}; `gx doctor` says how to "
        "build it anew"
    )


async def short_of_memory(
    stalled_percent: Callable[[], float | None] = machine.stalled_percent,
    swapped_bytes: Callable[[], int | None] = machine.swapped_bytes,
) -> AsyncIterator[str]:
    """Once, and as soon as it is so: that programs wait for memory. Nothing where the system doesn't tell."""
    while (stalled := stalled_percent()) is not None:
        if stalled >= STALLED_PERCENT:
            yield (
                f"in {stalled:g} % of the last minute something on this machine waited for memory "
                f"({(swapped_bytes() or 0) / 1e9:.1f} GB are swapped out), which makes all of it slow: close other "
                "programs, or choose a smaller model or fewer slots (GX_SLOTS)"
            )
            return
        await anyio.sleep(EVERY_S)
