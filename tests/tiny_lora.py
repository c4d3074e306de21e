"""A LoRA adapter for the tiny model, with random weights: it says other nonsense with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from tests.tiny_model import LAYERS, WIDTH

RANK = 4


def write_tiny_lora(path: Path | str, *, seed: int = 0, width: int = WIDTH) -> Path:
    """Write the adapter to `path` and return the path; of another `width` it fits no tiny model."""
    writer = GGUFWriter(str(path), "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    random = np.random.default_rng(seed)
    for layer in range(LAYERS):
        for name, shape in (("lora_a", (RANK, width)), ("lora_b", (width, RANK))):
            writer.add_tensor(f"blk.{layer}.attn_v.weight.{name}", random.standard_normal(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)
