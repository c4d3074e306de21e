"""`python -m cloud.loopback FOLDER [JSON]`: a plane as a process of its own, for as long as its stdin is open.

It prints one JSON line, `{"url", "environ"}`, once it serves. A line on stdin asks for a report, which is one JSON line
too; the end of stdin ends the plane and all its containers, after a last report. JSON is a `Settings`.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Annotated

import msgspec

from cloud.loopback.faults import Faults
from cloud.loopback.plane import MAX_CONTAINERS, Plane

USAGE = "usage: python -m cloud.loopback FOLDER [SETTINGS as JSON]"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the process can be told: see `Plane`."""

    faults: Faults = Faults()
    cold_start_s: float = 0.0
    max_containers: Annotated[int, msgspec.Meta(ge=1)] = MAX_CONTAINERS


async def serve(folder: Path, settings: Settings) -> None:
    """Serve until stdin ends."""
    plane = Plane(
        folder,
        faults=settings.faults,
        cold_start_s=settings.cold_start_s,
        max_containers=settings.max_containers,
    )
    lines: asyncio.Queue[str] = asyncio.Queue()
    async with plane:
        _say({"url": plane.url, "environ": plane.environ()})
        # A thread, since stdin may be anything; a daemon, since nothing ends a read of it.
        threading.Thread(target=_read, args=(asyncio.get_running_loop(), lines), daemon=True).start()
        while await lines.get():
            _say(plane.report())
        _say(plane.report())


def main(words: list[str]) -> int:
    """0 when stdin ended, 1 and 2 for what stderr explains (2: the words), 130 after Ctrl-C."""
    if not 1 <= len(words) <= 2:
        sys.stderr.write(f"{USAGE}\n")
        return 2
    try:
        settings = msgspec.json.decode(words[1] if len(words) == 2 else "{}", type=Settings)
        asyncio.run(serve(Path(words[0]), settings))
    except msgspec.DecodeError as error:
        sys.stderr.write(f"settings of the loopback: {error}; {USAGE}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"the loopback can't serve from {words[0]}: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _read(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[str]) -> None:
    """Pass on each line of stdin, and an empty one at its end."""
    while line := sys.stdin.readline():
        loop.call_soon_threadsafe(lines.put_nowait, line)
    loop.call_soon_threadsafe(lines.put_nowait, "")


def _say(line: object) -> None:
    try:
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
