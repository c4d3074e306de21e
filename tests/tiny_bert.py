"""An embedding model small enough for tests: BERT with random weights and a vocabulary of letters.

Its vectors mean nothing, but the same text has the same vector every time.
"""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, PoolingType

WIDTH, HEADS, LAYERS, INNER, CONTEXT = 64, 4, 2, 128, 512
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CONTROL, _NORMAL = 3, 1


def write_tiny_bert(path: Path | str, *, seed: int = 0, pooling: PoolingType = PoolingType.MEAN) -> Path:
    """Write the model, a megabyte, to `path`, and return the path."""
    writer, tokens = bert_writer(path, layers=LAYERS, pooling=pooling)
    random = np.random.default_rng(seed)

    def matrix(name: str, *shape: int) -> None:
        writer.add_tensor(f"{name}.weight", random.standard_normal(shape, np.float32) * np.float32(0.1))

    def bias(name: str, size: int) -> None:
        writer.add_tensor(f"{name}.bias", random.standard_normal(size, np.float32) * np.float32(0.01))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(WIDTH, np.float32))

    matrix("token_embd", len(tokens), WIDTH)
    matrix("token_types", 2, WIDTH)
    matrix("position_embd", CONTEXT, WIDTH)
    norm("token_embd_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"{block}.{part}", WIDTH, WIDTH)
            bias(f"{block}.{part}", WIDTH)
        norm(f"{block}.attn_output_norm")
        matrix(f"{block}.ffn_up", INNER, WIDTH)
        bias(f"{block}.ffn_up", INNER)
        matrix(f"{block}.ffn_down", WIDTH, INNER)
        bias(f"{block}.ffn_down", WIDTH)
        norm(f"{block}.layer_output_norm")
    if pooling == PoolingType.RANK:
        matrix("cls", WIDTH, WIDTH)
        bias("cls", WIDTH)
        matrix("cls.output", 1, WIDTH)
        bias("cls.output", 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def bert_writer(path: Path | str, *, layers: int, pooling: PoolingType) -> tuple[GGUFWriter, list[str]]:
    """A file with all but its weights: how wide it is, how it pools, and a vocabulary; that is given too."""
    letters = [*string.ascii_lowercase, *string.digits]
    tokens = [*_SPECIAL, *("\u2581" + letter for letter in letters), *letters]
    writer = GGUFWriter(str(path), "bert")
    writer.add_name("tiny-bert")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(layers)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    writer.add_token_type_count(2)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL if token in _SPECIAL else _NORMAL for token in tokens])
    for add, token in (
        (writer.add_unk_token_id, "[UNK]"),
        (writer.add_sep_token_id, "[SEP]"),
        (writer.add_pad_token_id, "[PAD]"),
        (writer.add_mask_token_id, "[MASK]"),
        (writer.add_bos_token_id, "[CLS]"),
        (writer.add_eos_token_id, "[SEP]"),
    ):
        add(tokens.index(token))
    return writer, tokens
