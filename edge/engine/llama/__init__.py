"""llama.cpp's low-level API as Python objects: a model, its vocabulary, a context, an encoder.

What is beside this folder knows no pointers but that of the vocabulary, which llguidance asks for.
"""

from edge.engine.llama.chat import CHATML, THOUGHTS
from edge.engine.llama.context import BATCH_TOKENS, PASS_TOKENS, Context, Fed, Rows, State, Wanted, rows_of
from edge.engine.llama.encoder import Encoder
from edge.engine.llama.library import build, gpu_free_bytes, offloads
from edge.engine.llama.model import DEFAULT_CONTEXT_TOKENS, Model
from edge.engine.llama.requantize import requantize
from edge.engine.llama.vocabulary import Vocabulary

__all__ = [
    "BATCH_TOKENS",
    "CHATML",
    "DEFAULT_CONTEXT_TOKENS",
    "PASS_TOKENS",
    "THOUGHTS",
    "Context",
    "Encoder",
    "Fed",
    "Model",
    "Rows",
    "State",
    "Vocabulary",
    "Wanted",
    "build",
    "gpu_free_bytes",
    "offloads",
    "requantize",
    "rows_of",
]  # fmt: skip
