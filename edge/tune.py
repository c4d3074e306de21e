"""`python -m edge.tune FILE SECONDS`: the fastest way to compute a model on this machine, as JSON on stdout.

A process of its own: it loads llama.cpp, which may abort. Of a small file it also makes copies in the formats of
`edge.prepare`, measures them, and deletes them again, to tell whether one would be faster.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge.cpu import busy_s, default_threads
from edge.engine.tuning import Speeds, Tuning
from edge.kernels import WIDE
from edge.prepare import KINDS, Kind
from edge.trials import Calibration, Setup, calibrate
from gx.core.errors import BenchError, GxError, ModelError
from gx.core.message import Value

if TYPE_CHECKING:
    from edge.engine.llama import Model

COPIED_BYTES = 1 << 30
"""The weights of a larger file, in more bits, take minutes to write."""
LONGEST_TRIAL = 0.15
"""The share of the time after which a trial isn't repeated."""
FOR_COPIES = 1 / 3
"""How much longer it may take for copies."""


class CopyTrial(Value, frozen=True, kw_only=True):
    """How fast a copy of that kind is, computed in the way that was chosen for the file itself."""

    kind: Kind
    speeds: Speeds


class Tuned(Value, frozen=True, kw_only=True):
    """`copies` are those that were tried, or `untried` says why none was.

    `format` is what most weights of the file are in; `others` the share of all processors that something else took
    meanwhile.
    """

    calibration: Calibration
    copies: tuple[CopyTrial, ...] = ()
    untried: str = ""
    format: str = ""
    others: float = 0.0


def tune(path: str, *, seconds: float) -> Tuned:
    """Measure a model file for about so long. :raises ModelError: if it can't be loaded, or writes nothing."""
    from edge.engine.engine import DEFAULT_SLOTS
    from edge.engine.llama import PASS_TOKENS, gpu_free_bytes, offloads
    from edge.engine.measure import SLOT_TOKENS, opened
    from edge.engine.memory import available_bytes, gpu_room
    from edge.header import read_header

    began_s, busy_before_s = time.monotonic(), busy_s()
    on_gpu = gpu_room(gpu_free_bytes()) if offloads() else None
    cache_bytes = available_bytes() // 4 if on_gpu is None else on_gpu // 2
    with opened(path) as model:
        if not model.can_write:
            raise ModelError(f"{path} writes nothing: only models that answer can be tuned")
        room = cache_bytes // model.token_bytes // SLOT_TOKENS
        default = Setup(
            tuning=Tuning(threads=default_threads(), pass_tokens=PASS_TOKENS), slots=max(1, min(DEFAULT_SLOTS, room))
        )
        calibration = calibrate(
            default,
            cores=default_threads(),
            measure=lambda setup, is_enough: _measure(model, setup, is_enough, LONGEST_TRIAL * seconds),
            has_time=lambda: time.monotonic() - began_s < seconds,
            most_slots=room,
        )
    if calibration is None:
        raise ModelError(f"{path} can't be measured: no context could be made or decoded")
    others = _others(busy_before_s, time.monotonic() - began_s)
    header = read_header(path)
    format_ = header.main_format()[0] if header is not None else ""
    kinds = [] if format_ in WIDE else [kind for kind in KINDS if kind != format_.lower()]
    untried = _why_untried(path) if kinds else ""
    copies: tuple[CopyTrial, ...] = ()
    if kinds and not untried:
        copies = _copies(path, kinds, calibration.chosen, until_s=began_s + seconds * (1 + FOR_COPIES))
    return Tuned(calibration=calibration, copies=copies, untried=untried, format=format_, others=others)


def _why_untried(path: str) -> str:
    """Why no copy of a file is tried, if so."""
    size, free = Path(path).stat().st_size, shutil.disk_usage(tempfile.gettempdir()).free
    if size > COPIED_BYTES:
        return f"the file has more than {COPIED_BYTES / 1e9:.1f} GB, so that it would take minutes"
    return f"{tempfile.gettempdir()} has less than {8 * size / 1e9:.1f} GB free" if free < 8 * size else ""


def _others(busy_before_s: float | None, elapsed_s: float) -> float:
    now_s = busy_s()
    if busy_before_s is None or now_s is None:
        return 0.0
    taken_s = now_s - busy_before_s - time.process_time()
    return max(0.0, taken_s / (elapsed_s * (os.cpu_count() or 1)))


def _measure(model: Model, setup: Setup, is_enough: Callable[[Speeds], bool], longest_s: float) -> Speeds | None:
    from edge.engine.measure import speeds

    began_s, tuning = time.monotonic(), setup.tuning
    try:
        return speeds(
            model,
            threads=tuning.threads or 1,
            slots=setup.slots,
            tuning=tuning,
            is_enough=lambda medians: is_enough(medians) or time.monotonic() - began_s > longest_s,
        )
    except (ModelError, BenchError):
        return None


def _copies(path: str, kinds: Sequence[Kind], setup: Setup, *, until_s: float) -> tuple[CopyTrial, ...]:
    """The speeds of copies of a small file, which are written to the disk for that, one after the other.

    The first is made in any case; none is begun after `until_s`.
    """
    from edge.engine.llama import requantize
    from edge.engine.measure import opened

    found: list[CopyTrial] = []
    with tempfile.TemporaryDirectory(prefix="gx-tune-") as folder:
        for kind in kinds:
            if found and time.monotonic() > until_s:
                break
            copy = f"{folder}/copy.gguf"
            try:
                requantize(path, copy, kind, threads=setup.tuning.threads or 1)
                with opened(copy) as model:
                    speeds = _measure(model, setup, lambda medians: False, until_s - time.monotonic())
            except ModelError:
                continue
            if speeds is not None:
                found.append(CopyTrial(kind=kind, speeds=speeds))
    return tuple(found)


def main() -> None:
    path, seconds = sys.argv[1:3]
    try:
        sys.stdout.buffer.write(msgspec.json.encode(tune(path, seconds=float(seconds))) + b"\n")
    except (GxError, OSError) as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
