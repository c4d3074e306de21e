"""A model's weights written in another format."""

from __future__ import annotations

import ctypes
import os
from typing import Literal

from edge.engine.gguf import check_header
from edge.engine.llama.library import forget, llama_cpp, take_complaint
from gx.core.errors import ModelError


def requantize(source: str, target: str, kind: Literal["bf16", "q8_0"], *, threads: int) -> None:
    """Write the weights of a GGUF file in another format. :raises ModelError: if llama.cpp can't."""
    check_header(source)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = {"bf16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16, "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0}[kind]
    params.nthread, params.allow_requantize = threads, True
    forget()
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)):
        raise ModelError(f"{source} can't be written as {kind}: {take_complaint()}", hint="is there room for the copy?")
