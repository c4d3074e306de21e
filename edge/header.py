"""What a GGUF file says of itself: its scalar fields, and how many weights are of which format. No engine is loaded.

The specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; the types of tensors are those of
`enum ggml_type` in ggml/include/ggml.h. A vocabulary is stepped over, so a header takes some ten milliseconds.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections import Counter
from pathlib import Path
from typing import Literal

from gx.core.message import Value

TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0",
    35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0", 42: "Q2_0",
}  # fmt: skip
_START = struct.Struct("<4sIQQ")  # magic, version, tensor count, metadata count
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SCALARS = {kind: struct.Struct(f"<{code}") for kind, code in _CODES.items()}
_STRING, _ARRAY = 8, 9
_LONGEST_STRING_BYTES = 256
"""A longer one is a chat template or a licence."""
_RANK = 4
"""LLAMA_POOLING_TYPE_RANK of llama.cpp's include/llama.h."""
_HEADS = ("cls.weight", "cls.output.weight")
"""LLM_TENSOR_CLS and LLM_TENSOR_CLS_OUT of llama.cpp's src/llama-arch.cpp."""


class Header(Value, frozen=True, kw_only=True):
    """`weights` is how many there are by format; `fields` are the numbers and short strings of the metadata.

    `has_head` says whether there are weights that make a score of a text.
    """

    fields: dict[str, int | float | str]
    weights: dict[str, int]
    has_head: bool = False

    def kind(self) -> Literal["chat", "embedding", "reranker"]:
        """What the model is for, by how it says that the states of a text become one."""
        pooling = self.number("pooling_type")
        return "reranker" if pooling == _RANK else "embedding" if pooling else "chat"

    def main_format(self) -> tuple[str, float]:
        """The format that most weights are in, and their share."""
        name = max(self.weights, key=lambda name: self.weights[name], default="")
        return name, self.weights.get(name, 0) / max(1, sum(self.weights.values()))

    def number(self, name: str) -> int:
        """A whole number that is said of the architecture; 0 where none is said, or one for each layer."""
        found = self.fields.get(f"{self.fields.get('general.architecture')}.{name}")
        return found if isinstance(found, int) else 0

    def trained_tokens(self) -> int | None:
        """The longest text that the model was trained on."""
        return self.number("context_length") or None

    def token_bytes(self) -> int | None:
        """What one token takes in the cache, in half precision; `None` where layers differ, or don't attend."""
        heads = self.number("attention.head_count")
        width = self.number("embedding_length") // heads if heads else 0
        key, value = self.number("attention.key_length") or width, self.number("attention.value_length") or width
        layers = self.number("block_count")
        return layers * (self.number("attention.head_count_kv") or heads) * (key + value) * 2 or None


def read_header(path: Path | str) -> Header | None:
    """The header of a GGUF file; `None` if it has none that can be read."""
    try:
        with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as bytes_:
            return _read(bytes_)
    except (OSError, ValueError, KeyError, OverflowError, struct.error):
        return None


def _read(data: mmap.mmap) -> Header:
    magic, _, n_tensors, n_fields = _START.unpack_from(data, 0)
    if magic != b"GGUF":
        raise ValueError("no GGUF file")
    at, fields, weights = _START.size, dict[str, int | float | str](), Counter[str]()
    for _ in range(n_fields):
        name, at = _text(data, at)
        (kind,) = _U32.unpack_from(data, at)
        value, at = _value(data, at + _U32.size, kind)
        if value is not None:
            fields[name] = value
    has_head = False
    for _ in range(n_tensors):
        tensor, at = _text(data, at)
        has_head = has_head or tensor in _HEADS
        (n_dimensions,) = _U32.unpack_from(data, at)
        shape = struct.unpack_from(f"<{n_dimensions}Q", data, at + _U32.size)
        at += _U32.size + _U64.size * n_dimensions
        (kind,) = _U32.unpack_from(data, at)
        at += _U32.size + _U64.size
        weights[TYPES.get(kind, f"type {kind}")] += math.prod(shape)
    return Header(fields=fields, weights=dict(weights), has_head=has_head)


def _text(data: mmap.mmap, at: int) -> tuple[str, int]:
    (n_bytes,) = _U64.unpack_from(data, at)
    start = at + _U64.size
    kept = data[start : start + min(n_bytes, _LONGEST_STRING_BYTES)]
    return kept.decode("utf-8", "replace"), start + n_bytes


def _value(data: mmap.mmap, at: int, kind: int) -> tuple[int | float | str | None, int]:
    """A metadata value, `None` for an array, and where the next one is."""
    if kind == _STRING:
        return _text(data, at)
    if kind != _ARRAY:
        scalar = _SCALARS[kind]
        return scalar.unpack_from(data, at)[0], at + scalar.size
    (of,) = _U32.unpack_from(data, at)
    (count,) = _U64.unpack_from(data, at + _U32.size)
    at += _U32.size + _U64.size
    if of != _STRING:
        return None, at + _SCALARS[of].size * count
    length, size = _U64.unpack_from, _U64.size
    for _ in range(count):
        at += size + length(data, at)[0]
    return None, at
