"""How much memory this process may still take, and what a model will take of it. It only reads: sizes and headers.

A claim is for the most that a model can come to, so that whoever keeps to claims never has to take memory back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from edge.header import read_header
from gx.core.errors import ModelError

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
MOVABLE_BYTES = 256 << 20
"""The most that a sequence may hold which is moved; nor more than the weights, since an extra call reads only those."""
_MOVES = 3
"""Two buffers, each half as large again as what was ever in it: `Context.save`."""
_FLOATS_PER_WIDTH = 16
"""What an encoder computes of one token in a layer, by the width of a token: the wide layer's inputs and outputs."""
_HEADS = 16
_GPU_KEPT_BYTES = 1 << 30
"""Of each GPU's memory, for what is computed there and for others: what llama.cpp's own tools leave free."""
_BESIDE_BYTES, _BESIDE_SHARE = 512 << 20, 16
"""What a model that a GPU hasn't room for leaves there for one that embeds texts beside it, and of how much at most."""


FileKey = tuple[str, int, int]
"""A file as it is now: (path, bytes, mtime_ns)."""


def file_key(path: str) -> FileKey | None:
    """Which file is there; `None` if there is none that can be looked at."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return path, status.st_size, status.st_mtime_ns


class Claim(NamedTuple):
    """Bytes of one model: its weights, what embeds texts with it, its caches, of these one turn's, and its adapters.

    `layers` is how many it has, and `share` how much of it is where the budget is: on a GPU, maybe not all. Models of
    one `file` have its weights in common, where all of them are in one place.
    """

    weights: int = 0
    encoder: int = 0
    cache: int = 0
    turn: int = 0
    layers: int = 0
    share: float = 1.0
    adapters: int = 0
    file: FileKey | None = None

    @property
    def bytes(self) -> int:
        """All of it, wherever it is."""
        return self.weights + self.adapters + self.encoder + self.cache


def total(claims: Collection[Claim], *, is_gpu: bool = False) -> int:
    """What models take together: their claims, and the buffers that sequences are moved through, which they share.

    Those are in the host's memory, so that they don't count on a GPU.
    """
    most = max((claim.weights for claim in claims if claim.cache), default=0)
    moves = 0 if is_gpu else _MOVES * min(MOVABLE_BYTES, most)
    return moves + sum(int(claim.share * claim.bytes) for claim in claims) - _common(claims)


def _common(claims: Iterable[Claim]) -> int:
    """What of the claims is for weights that another one of them is for too."""
    files = [(claim.file, claim.weights) for claim in claims if claim.file is not None and claim.share == 1]
    return sum(weights for _, weights in files) - sum(dict(files).values())


class Budget:
    """What all models may take. `most_bytes` None is what is free; beside others, one wants `least_cache_bytes`.

    `is_gpu`: it is a GPU's memory. What of a model has no room there is then checked against the host's.
    """

    def __init__(self, most_bytes: int | None, least_cache_bytes: int, *, is_gpu: bool = False) -> None:
        self._is_given, self._least_cache_bytes, self._is_gpu = most_bytes is not None, least_cache_bytes, is_gpu
        self.bytes = available_bytes() if most_bytes is None else most_bytes

    def total(self, claims: Collection[Claim]) -> int:
        """What models take of it."""
        return total(claims, is_gpu=self._is_gpu)

    def grow(self, room_bytes: int) -> None:
        """There may be more by now than there was: others have ended."""
        self.bytes = max(self.bytes, room_bytes)

    def check(self, path: str, claim: Claim) -> None:
        """:raises ModelError: (code "model.memory") if a model with the cache of one turn needs more than there is."""
        least = self.total([claim._replace(cache=claim.turn)])
        if least > self.bytes and not self._is_given:
            self.grow(available_bytes())
        if least > self.bytes:
            raise _no_room(path, claim, least, self.bytes, turn=least - claim.weights - claim.adapters)

    def cache_for(self, claim: Claim, beside: Collection[Claim]) -> int | None:
        """What a model's caches may take; `None` if there is no room beside those others. Alone, it gets one turn's."""
        left = self.bytes - self.total([*beside, claim]) + claim.cache
        least = min(claim.cache, max(claim.turn, self._least_cache_bytes)) if beside else claim.turn
        return max(least, min(claim.cache, left)) if left >= least or not beside else None


def check_host(path: str, claim: Claim) -> None:
    """:raises ModelError: (code "model.memory") if the host has no room for what of a model isn't on the GPU."""
    needed, there = int((1 - claim.share) * claim.bytes), available_bytes()
    if needed > there:
        raise _no_room(path, claim, needed, there, turn=claim.encoder + claim.turn, of=" beside the GPU's")


def _no_room(path: str, claim: Claim, needed: int, there: int, *, turn: int, of: str = "") -> ModelError:
    weights = in_words(claim.weights + claim.adapters)
    return ModelError(
        f"{path} doesn't fit into memory: it needs {in_words(needed)}{of} ({weights} of weights, {in_words(turn)} to "
        f"compute one turn), and there are {in_words(there)}",
        hint="choose a smaller file of the model or a smaller context, or close other programs",
        code="model.memory",
    )


def gpu_room(free_bytes: Sequence[int]) -> int | None:
    """What models may take of the free memory of some GPUs; `None` where there is none, or none says it."""
    return sum(max(free // 2, free - _GPU_KEPT_BYTES) for free in free_bytes) if free_bytes else None


def layers_that_fit(claim: Claim, room_bytes: int) -> int | None:
    """How many of a model's layers a GPU with so much room takes, each with its part of the cache; `None`: all.

    What comes behind the last layer counts as one more, as llama.cpp counts it, which puts it there first; where not
    all have room, that one may be the largest, so one layer fewer is taken.
    """
    if claim.bytes <= room_bytes or not claim.layers:
        return None
    room_bytes = max(0, room_bytes - min(_BESIDE_BYTES, room_bytes // _BESIDE_SHARE))
    return max(0, room_bytes * (claim.layers + 1) // claim.bytes - 1)


def in_words(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def claim_of(
    path: str, adapters: Sequence[str] = (), *, context_tokens: int, text_tokens: tuple[int, int], cache_bytes: int
) -> Claim:
    """What a model will take whose turns may have `context_tokens`, and whose caches come to `cache_bytes` at most.

    An embedding model has no cache, and computes at once a text of the second of `text_tokens` at most, and of the
    first at least. A file that can't be read takes nothing: whoever loads it will find out.
    """
    file, header = file_key(path), read_header(path)
    added = sum(found[1] for found in map(file_key, adapters) if found is not None)
    base = Claim(weights=file[1] if file is not None else 0, adapters=added, file=file)
    if header is None:
        return base._replace(cache=cache_bytes)
    tokens = min(context_tokens, header.trained_tokens() or context_tokens)
    if header.number("pooling_type"):
        least, most = text_tokens
        batch = max(least, min(tokens, most))
        # All tokens attend to all where flash attention can't be had; the keys and values are for a decoder that pools.
        heads, width = header.number("attention.head_count") or _HEADS, header.number("embedding_length")
        encoder = batch * (4 * heads * batch + 4 * _FLOATS_PER_WIDTH * width + (header.token_bytes() or 0))
        return base._replace(encoder=encoder, layers=header.number("block_count"))
    turn = tokens * (header.token_bytes() or 0)
    return base._replace(cache=max(turn, cache_bytes), turn=turn, layers=header.number("block_count"))


def available_bytes(*, meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Bytes that can be taken without swapping; half of all memory where the system doesn't say (macOS)."""
    known = [bytes_ for bytes_ in (_free(meminfo), _left(cgroup)) if bytes_ is not None]
    if known:
        return max(0, min(known))
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _free(meminfo: Path) -> int | None:
    """MemAvailable: what is free, and what the page cache would give back (proc(5))."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _left(cgroup: Path) -> int | None:
    """What a container's limit leaves, its file cache not counted as used (cgroup v2); `None` without a limit."""
    try:
        most, used = ((cgroup / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cached = re.search(r"^inactive_file (\d+)", (cgroup / "memory.stat").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(most) - int(used) + (int(cached[1]) if cached else 0) if most.isdigit() else None
