"""What can be told of a GGUF file from its first bytes, before llama.cpp is let near it. It knows bytes only.

The specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from pathlib import Path

from edge.header import read_header
from gx.core.errors import ModelError

_MAGIC, _VERSIONS = b"GGUF", (2, 3)  # version 1 had other widths
_HEADER = struct.Struct("<4sIQQ")  # magic, version, tensor count, metadata count
_MOST = {"block_count": 512, "expert_count": 1024}
"""LLAMA_MAX_LAYERS and LLAMA_MAX_EXPERTS of llama.cpp's llama-hparams.h: more of them end the process."""
_LEAST_TENSOR_BYTES, _LEAST_FIELD_BYTES = 24, 13  # a name's length, a type and a little more


def check_header(path: str) -> None:
    """Refuse what the loader needn't see. :raises ModelError: naming what is wrong with the file."""
    try:
        size = Path(path).stat().st_size
        with Path(path).open("rb") as file:
            header = file.read(_HEADER.size)
    except OSError as error:
        hint = "check the path, or fetch the model again"
        raise ModelError(f"the model file {path} can't be read: {error.strerror or error}", hint=hint) from error
    if header[:4] != _MAGIC:
        found = f"it begins with {header[:4]!r}" if header else "it is empty"
        raise ModelError(f"{path} isn't a GGUF file: {found}, not {_MAGIC!r}", hint="name a file in the GGUF format")
    if len(header) < _HEADER.size:
        raise ModelError(f"{path} is cut short: it ends within its header ({len(header)} bytes)", hint="fetch it again")
    _, version, tensors, fields = _HEADER.unpack(header)
    if version not in _VERSIONS:
        raise ModelError(f"{path} is GGUF version {version}; versions 2 and 3 can be read", hint="convert it again")
    least = tensors * _LEAST_TENSOR_BYTES + fields * _LEAST_FIELD_BYTES
    if least > size:
        raise ModelError(
            f"{path} is cut short or damaged: it claims {tensors} tensors and {fields} metadata fields, which take at "
            f"least {least} bytes, and it has {size}",
            hint="fetch the file again, and compare its SHA-256",
        )
    described = read_header(path)
    known = described.fields if described is not None else {}
    for name, most in _MOST.items():
        count = known.get(f"{known.get('general.architecture')}.{name}")
        if isinstance(count, int) and count > most:
            raise ModelError(
                f"{path} is damaged, or too large for llama.cpp: its {name} is {count}, and {most} is the most",
                hint="fetch the file again, and compare its SHA-256",
            )
