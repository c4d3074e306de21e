"""llama.cpp's batch, seen through numpy."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from edge.engine.llama.library import llama_cpp
from edge.engine.slots import Tokens


class Batch:
    """llama.cpp's batch of up to `n_tokens` tokens, seen through numpy: filling it by ctypes would take longer."""

    def __init__(self, n_tokens: int) -> None:
        self._batch = llama_cpp.llama_batch_init(n_tokens, 0, 1)
        as_array = np.ctypeslib.as_array
        self._tokens = as_array(self._batch.token, (n_tokens,))
        self._positions = as_array(self._batch.pos, (n_tokens,))
        self.wants_logits = as_array(self._batch.logits, (n_tokens,))
        as_array(self._batch.n_seq_id, (n_tokens,))[:] = 1
        # One array holds every token's sequence: the pointers to them are turned to it once, and back before the free.
        self._sequences = np.zeros(n_tokens, np.int32)
        self._pointers = as_array(ctypes.cast(self._batch.seq_id, ctypes.POINTER(ctypes.c_uint64)), (n_tokens,))
        self._own_pointers = self._pointers.copy()
        offsets = self._sequences.itemsize * np.arange(n_tokens, dtype=np.uint64)
        self._pointers[:] = np.uint64(self._sequences.ctypes.data) + offsets

    def add(self, n: int, sequence: int, start: int, tokens: Tokens) -> int:
        """Put the tokens of a sequence, the first at position `start`, behind the first `n`; how many there are now."""
        end = n + len(tokens)
        self._tokens[n:end] = tokens
        self._positions[n:end] = range(start, start + len(tokens))
        self._sequences[n:end] = sequence
        return end

    def of(self, n_tokens: int) -> Any:
        """The batch of the first `n_tokens`."""
        self._batch.n_tokens = n_tokens
        return self._batch

    def close(self) -> None:
        self._pointers[:] = self._own_pointers
        llama_cpp.llama_batch_free(self._batch)
