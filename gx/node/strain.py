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
SWAPPED_BYTES = 512 << 20
"""So many more bytes swapped out tell the same, on a system that counts no waits."""


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
    """Once, and as soon as it is so: that programs wait for memory, or where the system doesn't tell that, that more
    and more is swapped out. Nothing where it tells neither.
    """
    least_bytes = swapped_bytes()
    while True:
        stalled, now_bytes = stalled_percent(), swapped_bytes()
        if stalled is not None:
            seen = f"in {stalled:g} % of the last minute something on this machine waited for memory"
            is_short = stalled >= STALLED_PERCENT
        elif now_bytes is None or least_bytes is None:
            return
        else:
            least_bytes = min(least_bytes, now_bytes)
            seen = f"{(now_bytes - least_bytes) / 1e9:.1f} GB more than before have no room in this machine's memory"
            is_short = now_bytes - least_bytes >= SWAPPED_BYTES
        if is_short:
            yield (
                f"{seen} ({(now_bytes or 0) / 1e9:.1f} GB are swapped out in all), which makes all of it slow: close "
                "other programs, or choose a smaller model or fewer slots (GX_SLOTS)"
            )
            return
        await anyio.sleep(EVERY_S)
