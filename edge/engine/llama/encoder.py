"""Texts into vectors, over an embedding model or a reranker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.engine.llama.batch import Batch
from edge.engine.llama.context import Rows
from edge.engine.llama.library import forget, llama_cpp, take_complaint
from edge.engine.llama.model import Model
from edge.engine.slots import Tokens
from gx.core.errors import BenchError, ModelError


class Encoder:
    """Texts in, vectors out, over an embedding model or a reranker; pooled as the model's file says.

    Every text of a batch is a sequence of its own, and all of it is computed in one pass: `batch_tokens` is the longest
    text, too. :raises ModelError: if there isn't the memory for it.
    """

    batch_texts = 64

    def __init__(self, model: Model, *, threads: int, batch_tokens: int) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = batch_tokens
        params.n_seq_max, params.kv_unified, params.embeddings, params.no_perf = self.batch_texts, True, True, True
        params.n_threads = params.n_threads_batch = threads
        self._pointer: Any = model.new_context(params)
        if not self._pointer:
            raise ModelError(f"no encoder of {batch_tokens} tokens could be made for {model.path}: {take_complaint()}")
        self._memory = llama_cpp.llama_get_memory(self._pointer)  # NULL for a model that is an encoder only
        self._run = llama_cpp.llama_decode if self._memory else llama_cpp.llama_encode
        width = llama_cpp.llama_model_n_cls_out if model.is_reranker else llama_cpp.llama_model_n_embd_out
        self.dimensions: int = width(model._pointer)
        self._batch = Batch(batch_tokens)
        self._batch.wants_logits[:] = 1

    def encode(self, texts: Sequence[Tokens]) -> Rows:
        """The vectors of at most `batch_texts` texts of together at most `batch_tokens` tokens, [n_texts, dimensions].

        A reranker's are scores. :raises BenchError: if llama.cpp can't encode.
        """
        n = 0
        for sequence, tokens in enumerate(texts):
            n = self._batch.add(n, sequence, 0, tokens)
        if self._memory:
            llama_cpp.llama_memory_clear(self._memory, False)
        forget()
        status = self._run(self._pointer, self._batch.of(n))
        if status != 0:
            raise BenchError(f"llama.cpp could not encode {n} tokens (status {status}): {take_complaint()}")
        rows = [llama_cpp.llama_get_embeddings_seq(self._pointer, sequence) for sequence in range(len(texts))]
        return np.stack([np.ctypeslib.as_array(row, (self.dimensions,)) for row in rows])

    def close(self) -> None:
        """Free the context."""
        if self._pointer:
            self._batch.close()
            llama_cpp.llama_free(self._pointer)
            self._pointer = None
