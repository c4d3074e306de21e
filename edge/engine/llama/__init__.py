"""llama.cpp's low-level API as Python objects: a model, a context, an encoder. What is beside it knows no pointers."""

from edge.engine.llama.chat import CHATML
from edge.engine.llama.context import BATCH_TOKENS, PASS_TOKENS, Context, Fed, Row, Rows, State, Wanted, rows_of
from edge.engine.llama.encoder import Encoder
from edge.engine.llama.library import build, default_threads, gpu_free_bytes, offloads
from edge.engine.llama.model import DEFAULT_CONTEXT_TOKENS, Model
from edge.engine.llama.requantize import requantize

__all__ = [
    "BATCH_TOKENS", "CHATML", "DEFAULT_CONTEXT_TOKENS", "PASS_TOKENS", "Context", "Encoder", "Fed", "Model", "Row",
    "Rows", "State", "Wanted", "build", "default_threads", "gpu_free_bytes", "offloads", "requantize", "rows_of",
]  # fmt: skip
