"""One run of no-op tasks: prints tasks a second, and the KiB of resident memory that each finished one added."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import anyio

from gx.run.inputs import Row
from tests.desk import open_desk
from tests.fakes import ScriptedWorker

RECIPE = """
version: 1
name: noop
models: {m: smollm2}
agents: {a: {model: m, persona: You answer.}}
steps:
  - {id: s, for_each: inputs, agent: a, prompt: "Say {{ item.text }}"}
"""


def rows(jobs: int) -> Iterator[Row]:
    for index in range(jobs):
        value = b'{"id":"T%d","text":"ticket number %d"}' % (index, index)
        yield Row(index=index, line=index + 1, id=f"T{index}", value=value)


def resident_kib() -> float:
    """What the kernel holds in memory for this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


async def main(jobs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_desk(Path(folder), ScriptedWorker(leases=256, keeps_turns=False)) as desk:
            before = resident_kib()
            began = time.perf_counter()
            active = await desk.begin(RECIPE, rows(jobs))
            done = 0
            with active.results.watch() as stream:
                async for chunk in stream:
                    done += len(chunk)
            seconds = time.perf_counter() - began
            if done != jobs:
                raise SystemExit(f"{done} of {jobs} tasks came back")
            sys.stdout.write(f"{jobs / seconds} {(resident_kib() - before) / jobs}\n")


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]))
