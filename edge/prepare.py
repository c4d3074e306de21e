"""`python -m edge.prepare SOURCE TARGET KIND`: a faster copy of a model, with its costs and gains, as JSON on stdout.

A process of its own: it loads llama.cpp, which may abort, and holds two models at once. KIND is one that keeps the
distribution (`KINDS`): a step down, such as from Q4_1 to Q4_0, ruins a small model, and isn't offered.

Invariant: TARGET appears whole or not at all.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import msgspec

from gx.core.errors import GxError, ModelError
from gx.core.message import Value

Kind = Literal["bf16", "q8_0"]
KINDS: tuple[Kind, ...] = ("bf16", "q8_0")
"""BF16 keeps every weight of a 4- or 5-bit file to 8 bits of mantissa; Q8_0 takes half the memory of it."""


class Measured(Value, frozen=True, kw_only=True):
    """Tokens a second before and after, of a prompt and of `slots` answers together; and how far the copy is off."""

    size_bytes: int
    copy_bytes: int
    slots: int
    prefill: tuple[float, float]
    decode: tuple[float, float]
    kl: float
    same_best: float
    tokens: int


def prepare(source: str, target: str, kind: Kind, *, slots: int = 16) -> Measured:
    """Write the copy, and measure it beside its source. :raises ModelError: if either can't be made or read."""
    from edge.engine.llama import Model, default_threads, requantize
    from edge.engine.measure import divergence, speeds

    threads = default_threads()
    partial = f"{target}.part"
    requantize(source, partial, kind, threads=threads)
    original, copy = Model("source", source), Model("copy", partial)
    before, after = (speeds(model, threads=threads, slots=slots) for model in (original, copy))
    apart = divergence(original, copy, _text(), threads=threads)
    Path(partial).replace(target)
    return Measured(
        size_bytes=Path(source).stat().st_size,
        copy_bytes=Path(target).stat().st_size,
        slots=slots,
        prefill=(before.prefill, after.prefill),
        decode=(before.decode, after.decode),
        kl=apart.kl,
        same_best=apart.same_best,
        tokens=apart.tokens,
    )


def _text() -> str:
    """Some English and some code to compare along: this program's own."""
    folder = Path(__file__).parent
    return "".join((folder / name).read_text() for name in ("prepare.py", "agent.py", "choose.py", "frames.py"))


def main() -> None:
    source, target, wanted = sys.argv[1:4]
    try:
        kind = next((kind for kind in KINDS if kind == wanted), None)
        if kind is None:
            raise ModelError(f"{wanted!r} is no kind of copy; there are {', '.join(KINDS)}")
        sys.stdout.buffer.write(msgspec.json.encode(prepare(source, target, kind)) + b"\n")
    except (GxError, OSError) as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
