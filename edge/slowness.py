"""What makes a model slower on this CPU than it need be: a build that leaves instructions unused, a slow format.

It reads a file's header; it loads no model and no engine. Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import msgspec

from edge.cpu import WORTH_HAVING, unused_sets
from edge.header import TYPES, Header, read_header
from edge.kernels import faster_copy, is_fast, is_step_down
from gx.core.message import ModelCard

ON_GPU = "GPU"
"""Among the flags of a build that puts layers on a GPU of this machine."""


def is_gpu_build(build: str) -> bool:
    """Whether an engine whose build calls itself so, its flags in brackets, puts layers on a GPU."""
    return ON_GPU in _flags(build)


class SlowFormat(NamedTuple):
    """`share` of a file's weights are in formats without a fast path; a copy of that `kind` has one, if any does."""

    names: str
    share: float
    kind: str | None

    def __str__(self) -> str:
        return (
            f"{self.share:.0%} of its weights are {self.names}, for which this CPU has no fast path: "
            "prompts take two to four times as long as in a format that has one"
        )


def slow_format(path: Path | str, flags: Collection[str]) -> SlowFormat | None:
    """What is slow about a file for a build with these flags; `None` if less than half of its weights are."""
    header = read_header(path)
    return None if header is None else _slow_format(header, flags)


def _slow_format(header: Header, flags: Collection[str]) -> SlowFormat | None:
    slow = {name: n for name, n in header.weights.items() if name in TYPES.values() and not is_fast(name, flags)}
    share = sum(slow.values()) / max(1, sum(header.weights.values()))
    if share < 0.5:
        return None
    kind = faster_copy(flags)
    is_down = kind is not None and any(is_step_down(kind, name) for name in slow)
    return SlowFormat(" and ".join(sorted(slow, key=lambda name: -slow[name])), share, None if is_down else kind)


def unused(flags: Collection[str], has: frozenset[str] | None) -> str:
    """What a build with these flags leaves unused of a CPU's instructions, in a sentence; empty if nothing."""
    names = unused_sets(flags, has)
    if not names:
        return ""
    times = max(WORTH_HAVING[name] for name in names)
    return (
        f"the engine was built without {', '.join(names)}, which this CPU has: "
        f"prompts may take up to {times} times as long as they need"
    )


def warnings(path: Path | str, *, build: str, has: frozenset[str] | None) -> tuple[str, ...]:
    """What there is to warn of a model file, by its header alone; nothing if it has none that can be read.

    `build` is the engine's, its flags in brackets; the CPU `has` these sets. What runs on a GPU goes by other rules.
    """
    flags = _flags(build)
    if ON_GPU in flags or (header := read_header(path)) is None:
        return ()
    found = [f"{text}; `gx doctor` says how to build it anew"] if (text := unused(flags, has)) else []
    if slow := _slow_format(header, flags):
        remedy = f"; `gx models prepare` makes a {slow.kind} copy of it, which has one" if slow.kind else ""
        found.append(f"{slow}{remedy}")
    return tuple(found)


def _flags(build: str) -> list[str]:
    return build.partition("(")[2].rstrip(")").split()


def few_layers(layers: int, on_gpu: int) -> str:
    """What it means that a GPU has no room for all layers of a model, and one for what comes behind them."""
    return (
        f"the GPU's memory has room for {on_gpu} of its {layers + 1} layers, the output counted as one; the others run "
        "on the CPU, each ten times as slowly or worse: choose a smaller file of the model or a smaller "
        "GX_CONTEXT_TOKENS, or free the GPU's memory and then `gx node stop`"
    )


def few_slots(slots: int, wanted: int) -> str:
    """What it means that the memory has room for less than half of the slots that were wanted."""
    return (
        f"the memory has room for {slots} turns of it at a time, of the {wanted} that would keep the machine busy: "
        "choose a smaller model, or close other programs and then `gx node stop`"
    )


def warned(card: ModelCard, *, build: str, has: frozenset[str] | None) -> ModelCard:
    """The card with what there is to warn of, beside what it has."""
    return msgspec.structs.replace(card, warnings=(*card.warnings, *warnings(card.path, build=build, has=has)))
