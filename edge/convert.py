"""python -m edge.convert FOLDER TARGET: a BERT encoder's safetensors as a GGUF file for llama.cpp, without torch.

It knows one architecture, that of sentence-transformers' MiniLM models, and takes what it needs from the files beside
the weights. Matrices are written as F16, vectors and the small position tables as F32, as llama.cpp's own converter
has it (convert_hf_to_gguf.py); equal weights give equal bytes, on every machine.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

_EMBEDDINGS = {
    "word_embeddings.weight": "token_embd.weight",
    "token_type_embeddings.weight": "token_types.weight",
    "position_embeddings.weight": "position_embd.weight",
    "LayerNorm.weight": "token_embd_norm.weight",
    "LayerNorm.bias": "token_embd_norm.bias",
}
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_KEPT_F32 = frozenset({"position_embd.weight", "token_types.weight"})
_SPECIAL = {"[PAD]": "pad", "[UNK]": "unk", "[SEP]": "sep", "[MASK]": "mask"}
_BOUNDS = {"[CLS]": "bos", "[SEP]": "eos"}


def main() -> None:
    """Convert, and print the sha256 of the weights that it was made from."""
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    weights = folder / "model.safetensors"
    write(folder, target)
    with weights.open("rb") as file:
        sys.stdout.write(hashlib.file_digest(file, "sha256").hexdigest())


def write(folder: Path, target: Path) -> None:
    """Write `target` from model.safetensors, config.json and vocab.txt of the folder."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    words = (folder / "vocab.txt").read_text("utf-8").removesuffix("\n").split("\n")
    if config["model_type"] != "bert" or len(words) != config["vocab_size"]:
        raise SystemExit(f"expected a BERT model of {config['vocab_size']} words, got {len(words)}")
    writer = gguf.GGUFWriter(str(target), "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    _add_words(writer, words)
    writer.add_token_type_count(config["type_vocab_size"])
    tensors = load_file(folder / "model.safetensors")
    for source, name in _names(config["num_hidden_layers"]).items():
        tensor = tensors[source].astype(np.float32)
        is_matrix = tensor.ndim > 1 and name not in _KEPT_F32
        writer.add_tensor(name, tensor.astype(np.float16) if is_matrix else tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_words(writer: gguf.GGUFWriter, words: list[str]) -> None:
    """WordPiece as llama.cpp has it: the beginning of a word is marked instead of its continuation."""
    special = {*_SPECIAL, *_BOUNDS}
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([w if w in special else w[2:] if w.startswith("##") else "\u2581" + w for w in words])
    writer.add_token_types([control if word in special else normal for word in words])
    for word, role in (*_SPECIAL.items(), *_BOUNDS.items()):
        getattr(writer, f"add_{role}_token_id")(words.index(word))


def _names(layers: int) -> dict[str, str]:
    names = {f"embeddings.{source}": name for source, name in _EMBEDDINGS.items()}
    for layer in range(layers):
        for source, name in _LAYER.items():
            for part in ("weight", "bias"):
                names[f"encoder.layer.{layer}.{source}.{part}"] = f"blk.{layer}.{name}.{part}"
    return names


if __name__ == "__main__":
    main()
