"""Names made from content: equal content, equal name, on every machine.

A *digest* is SHA-256; refs, keys and fingerprints keep its first 128 bits as 32 hex digits. Task ids are digests of
(run, step, path), so that unfolding a recipe twice makes nothing twice.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

_CANONICAL = msgspec.json.Encoder(order="deterministic")
_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"


def canonical(value: Any) -> bytes:
    """JSON bytes of `value` with sorted keys and no spaces: equal values give equal bytes."""
    return _CANONICAL.encode(value)


def digest(content: bytes) -> str:
    """The first 128 bits of SHA-256 of `content`, as 32 hex digits."""
    return hashlib.sha256(content).hexdigest()[:32]


def digest_of(*parts: Any) -> str:
    """The digest of the canonical JSON of `parts`."""
    return digest(_CANONICAL.encode(parts))


def task_id(run: str, step: str, path: str) -> str:
    """The id of the task at `path` (its place within the step, such as "17" or "17/gpu=L4"): 16 hex digits."""
    return hashlib.sha256(f"{run}\0{step}\0{path}".encode()).hexdigest()[:16]


def run_id(name: str, entropy: bytes) -> str:
    """A readable run id: the recipe's name and six characters of `entropy` (at least 6 bytes)."""
    slug = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")[:24] or "run"
    return slug + "-" + "".join(_ALPHABET[b % len(_ALPHABET)] for b in entropy[:6])


def mix_seed(seed: int, failures: int) -> int:
    """The seed of an attempt: the recipe's own at first, another one after each failure, the same every time."""
    if failures == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}\0{failures}".encode()).digest()[:4], "big")
