"""`python -m edge.prepare SOURCE TARGET KIND`: a faster copy of a model, with its costs and gains, as JSON on stdout.

A process of its own: it loads llama.cpp, which may abort. KIND is one that keeps the
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
SLOTS = 16
"""Answers at a time, where those are measured."""


class Measured(Value, frozen=True, kw_only=True):
    """What a copy costs and gains: each pair is of the source, then of the copy.

    `prefill` is tokens a second of prompts, or of texts to embed. Of a model that writes there is `decode`, tokens a
    second of `slots` answers together, and over `tokens` places of a text `kl`, the mean divergence of the next token
    in nats, and `same_best`, how often the likeliest one is the same. Of an embedding model there is `cosine`, the
    least one of the two vectors of any of `texts`.
    """

    size_bytes: int
    copy_bytes: int
    prefill: tuple[float, float]
    slots: int = 0
    decode: tuple[float, float] | None = None
    kl: float | None = None
    same_best: float | None = None
    tokens: int = 0
    cosine: float | None = None
    texts: int = 0

    @property
    def rates(self) -> tuple[float, float]:
        """Tokens a second, before and after, in what takes the most time."""
        return self.decode or self.prefill


def prepare(source: str, target: str, kind: Kind) -> Measured:
    """Write the copy, and measure it beside its source. :raises ModelError: if either can't be made or read."""
    from edge.cpu import default_threads
    from edge.engine.llama import requantize
    from edge.engine.measure import opened

    threads = default_threads()
    with opened(source) as original:
        can_write, can_embed = original.can_write, original.can_embed and not original.is_reranker
    if not (can_write or can_embed):
        hint = "a reranker's file is used as it is"
        raise ModelError(f"{source} neither writes nor embeds, so a copy can't be compared with it", hint=hint)
    partial = f"{target}.part"
    requantize(source, partial, kind, threads=threads)
    measured = (_writing if can_write else _embedding)(source, partial, threads)
    Path(partial).replace(target)
    return measured


def _writing(source: str, copy: str, threads: int) -> Measured:
    from edge.engine.measure import divergence, opened, speeds

    found = []
    for path in (source, copy):  # one at a time: beside the other, a GPU might have no room for it
        with opened(path) as model:
            found.append(speeds(model, threads=threads, slots=SLOTS))
    before, after = found
    with opened(source) as original, opened(copy) as other:
        apart = divergence(original, other, _text(), threads=threads)
    return Measured(
        size_bytes=Path(source).stat().st_size,
        copy_bytes=Path(copy).stat().st_size,
        prefill=(before.prefill, after.prefill),
        slots=SLOTS,
        decode=(before.decode, after.decode),
        kl=apart.kl,
        same_best=apart.same_best,
        tokens=apart.tokens,
    )


def _embedding(source: str, copy: str, threads: int) -> Measured:
    from edge.engine.measure import encoded, likeness, opened

    found = []
    for path in (source, copy):
        with opened(path) as model:
            found.append(encoded(model, _text(), threads=threads))
    before, after = found
    return Measured(
        size_bytes=Path(source).stat().st_size,
        copy_bytes=Path(copy).stat().st_size,
        prefill=(before.tokens_per_s, after.tokens_per_s),
        cosine=likeness(before.vectors, after.vectors),
        texts=len(before.vectors),
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
