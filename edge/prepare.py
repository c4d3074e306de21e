"""`python -m edge.prepare SOURCE TARGET KIND`: a faster copy of a model, with its costs and gains, as JSON on stdout.

A process of its own: it loads llama.cpp, which may abort, and holds two models at once. KIND is one that keeps the
distribution (`KINDS`): a step down, such as from Q4_1 to Q4_0, ruins a small model, and isn't offered.

Invariant: TARGET appears whole or not at all.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from gx.core.errors import GxError, ModelError
from gx.core.message import Value

if TYPE_CHECKING:
    from edge.engine.llama import Model

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
    from edge.engine.llama import default_threads, requantize
    from edge.engine.measure import opened

    threads = default_threads()
    original = opened("source", source)
    if not (original.can_write or original.can_embed) or original.is_reranker:
        hint = "a reranker's file is used as it is"
        raise ModelError(f"{source} neither writes nor embeds, so a copy can't be compared with it", hint=hint)
    partial = f"{target}.part"
    requantize(source, partial, kind, threads=threads)
    copy = opened("copy", partial)
    measure = _writing if original.can_write else _embedding
    measured = measure(original, copy, Path(source).stat().st_size, Path(partial).stat().st_size, threads)
    Path(partial).replace(target)
    return measured


def _writing(original: Model, copy: Model, size_bytes: int, copy_bytes: int, threads: int) -> Measured:
    from edge.engine.measure import divergence, speeds

    before, after = (speeds(model, threads=threads, slots=SLOTS) for model in (original, copy))
    apart = divergence(original, copy, _text(), threads=threads)
    return Measured(
        size_bytes=size_bytes,
        copy_bytes=copy_bytes,
        prefill=(before.prefill, after.prefill),
        slots=SLOTS,
        decode=(before.decode, after.decode),
        kl=apart.kl,
        same_best=apart.same_best,
        tokens=apart.tokens,
    )


def _embedding(original: Model, copy: Model, size_bytes: int, copy_bytes: int, threads: int) -> Measured:
    from edge.engine.measure import encoded, likeness

    before, after = (encoded(model, _text(), threads=threads) for model in (original, copy))
    return Measured(
        size_bytes=size_bytes,
        copy_bytes=copy_bytes,
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
