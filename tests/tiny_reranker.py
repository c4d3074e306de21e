"""A reranker whose scores can be worked out by hand: the more of a text is the letter z, the more it scores.

One layer of BERT: each token is a vector that says whether it is a z, all attend to all alike, and the head reads off
the first token how large a part of them was. `expected` does the same in a few lines.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import PoolingType

from tests.tiny_bert import INNER, WIDTH, bert_writer

CONTEXT = 512
GAIN = 10.0
_IS_Z, _SHARE = 1, 2
"""Where a token's vector says that it is a z, and where the layer puts how large a part of all they are."""
Vector = npt.NDArray[np.float32]


def write_counting_reranker(path: Path | str, *, template: str | None = None, has_head: bool = True) -> Path:
    """Write the model, some 300 KB, to `path`, and return the path. `template` says how a pair is one text."""
    writer, tokens = bert_writer(path, layers=1, pooling=PoolingType.RANK)
    if template is not None:
        writer.add_string("tokenizer.chat_template.rerank", template)

    def zeros(*shape: int) -> Vector:
        return np.zeros(shape, np.float32)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
        writer.add_tensor(f"{name}.bias", zeros(WIDTH))

    writer.add_tensor("token_embd.weight", np.stack([_embedded(token) for token in tokens]))
    writer.add_tensor("token_types.weight", zeros(2, WIDTH))
    writer.add_tensor("position_embd.weight", zeros(CONTEXT, WIDTH))
    norm("token_embd_norm")
    moved = zeros(WIDTH, WIDTH)
    moved[_SHARE, _IS_Z] = GAIN
    for part, matrix in (("q", zeros(WIDTH, WIDTH)), ("k", zeros(WIDTH, WIDTH)), ("v", moved)):
        writer.add_tensor(f"blk.0.attn_{part}.weight", matrix)
        writer.add_tensor(f"blk.0.attn_{part}.bias", zeros(WIDTH))
    writer.add_tensor("blk.0.attn_output.weight", np.eye(WIDTH, dtype=np.float32))
    writer.add_tensor("blk.0.attn_output.bias", zeros(WIDTH))
    norm("blk.0.attn_output_norm")
    writer.add_tensor("blk.0.ffn_up.weight", zeros(INNER, WIDTH))
    writer.add_tensor("blk.0.ffn_up.bias", zeros(INNER))
    writer.add_tensor("blk.0.ffn_down.weight", zeros(WIDTH, INNER))
    writer.add_tensor("blk.0.ffn_down.bias", zeros(WIDTH))
    norm("blk.0.layer_output_norm")
    if has_head:
        read = zeros(1, WIDTH)
        read[0, _SHARE] = 1.0
        writer.add_tensor("cls.output.weight", read)
        writer.add_tensor("cls.output.bias", zeros(1))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def expected(n_z: int, n_tokens: int) -> float:
    """The score of a text of so many tokens, so many of which are a z."""
    z, other = _normed(_embedded("z")), _normed(_embedded("[CLS]"))
    first = other.copy()
    first[_SHARE] += GAIN * (n_z * z[_IS_Z] + (n_tokens - n_z) * other[_IS_Z]) / n_tokens
    return float(_normed(_normed(first))[_SHARE])


def _embedded(token: str) -> Vector:
    vector = np.zeros(WIDTH, np.float32)
    vector[0], vector[_IS_Z] = 4.0, float(token.removeprefix("\u2581") == "z")
    return vector


def _normed(vector: Vector) -> Vector:
    made: Vector = (vector - vector.mean()) / np.sqrt(vector.var() + np.float32(1e-12))
    return made
