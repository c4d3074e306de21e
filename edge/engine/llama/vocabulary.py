"""A model's vocabulary: texts into tokens, tokens into bytes, and what some tokens are for.

It may be read from any thread, as long as its model is open.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from edge.engine.llama.chat import THOUGHTS
from edge.engine.llama.library import llama_cpp
from edge.engine.llama.orders import CUT
from edge.engine.slots import Tokens
from gx.core.errors import ModelError

_PIECE_BYTES = 256
_WRITTEN_OUT = {*THOUGHTS, *THOUGHTS.values()}
_LAST_PART_TOKENS = 1024  # in so many of the last tokens the beginning of an answer is looked for


class Vocabulary:
    """The vocabulary of the loaded model at `pointer`, whose file is at `path`.

    `eog` are the tokens that end an answer, `end_token` the one that a chat's turn ends with, below 0 if there is none.
    `pointer` is llama.cpp's own.

    :raises ModelError: if the file has none.
    """

    def __init__(self, pointer: Any, path: str) -> None:
        self.pointer, self._path = llama_cpp.llama_model_get_vocab(pointer), path
        self.n_tokens: int = llama_cpp.llama_vocab_n_tokens(self.pointer)
        if self.n_tokens <= 0:
            raise ModelError(f"{path} has no vocabulary", hint="name a GGUF file that holds a whole model")
        self.eog = frozenset(t for t in range(self.n_tokens) if llama_cpp.llama_vocab_is_eog(self.pointer, t))
        end, text_end = llama_cpp.llama_vocab_eot(self.pointer), llama_cpp.llama_vocab_eos(self.pointer)
        self.end_token: int = end if end >= 0 else text_end
        self._pieces: dict[int, bytes] = {}

    def __repr__(self) -> str:
        return f"<Vocabulary of {self.n_tokens} tokens>"

    @property
    def bos(self) -> str:
        """The name of the token that a text begins with; empty if there is none."""
        return self.name(llama_cpp.llama_vocab_bos(self.pointer))

    @property
    def eos(self) -> str:
        """The name of the token that a text ends with; empty if there is none."""
        return self.name(llama_cpp.llama_vocab_eos(self.pointer))

    @property
    def begins_with_bos(self) -> bool:
        """Whether the model was trained on texts that begin with `bos`."""
        return bool(llama_cpp.llama_vocab_get_add_bos(self.pointer))

    def orders(self) -> tuple[set[str], set[str]]:
        """The names of the tokens that mean no text, and of those that the vocabulary adds to words for some use."""
        attributes = [llama_cpp.llama_vocab_get_attr(self.pointer, token) for token in range(self.n_tokens)]
        kinds = (
            llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN,
            llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED,
        )
        controls, others = ({self.name(t) for t, a in enumerate(attributes) if a & kind} for kind in kinds)
        return controls, others

    def pair_marks(self) -> tuple[list[int], list[int], list[int]]:
        """The tokens that go before two texts, between them and behind them."""
        separator, end = llama_cpp.llama_vocab_sep(self.pointer), llama_cpp.llama_vocab_eos(self.pointer)
        end = separator if end < 0 else end
        ends = [end] if llama_cpp.llama_vocab_get_add_eos(self.pointer) and end >= 0 else []
        separates = llama_cpp.llama_vocab_get_add_sep(self.pointer) and separator >= 0
        before = [llama_cpp.llama_vocab_bos(self.pointer)] if self.begins_with_bos else []
        return before, [*ends, *([separator] if separates else [])], ends

    def tokenize(self, text: str, *, adds_special: bool = False, reads_control: bool = True) -> Tokens:
        """The tokens of `text`, [n_tokens] int32; control tokens written out in it count as such if it `reads_control`.

        With `adds_special` come those that the model wants at the beginning and the end of a text of its own. What is
        on both sides of a `CUT` is tokenized apart.
        """
        if CUT in text and not adds_special:
            return np.concatenate([self.tokenize(part, reads_control=reads_control) for part in text.split(CUT)])
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 16
        found = np.empty(room, np.int32)
        buffer = found.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        n_tokens = llama_cpp.llama_tokenize(self.pointer, raw, len(raw), buffer, room, adds_special, reads_control)
        if n_tokens < 0:
            raise ModelError(
                f"the tokenizer of {self._path} makes more tokens than bytes of a text of {len(raw)} bytes"
            )
        return found[:n_tokens]

    def last_part(self, text: str, tokens: Tokens) -> tuple[int, str]:
        """Where the last control token is in the tokens of `text`, and the text from there on; (0, `text`) if none is.

        What is between two control tokens is tokenized for itself, so whatever is put behind the text, the tokens
        before that place stay as they are.
        """
        for place in range(len(tokens) - 1, max(-1, len(tokens) - 1 - _LAST_PART_TOKENS), -1):
            token = int(tokens[place])
            if llama_cpp.llama_vocab_is_control(self.pointer, token):
                name = self.name(token)
                part = text[text.rfind(name) :] if name and name in text else text
                return (place, part) if np.array_equal(self.tokenize(part), tokens[place:]) else (0, text)
        return 0, text

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for, which may end within a character; none for a control token.

        Where a thought begins and ends is written out all the same: without it nobody could tell it from the answer.
        """
        known = self._pieces.get(token)
        if known is None:
            is_written = self.name(token) in _WRITTEN_OUT
            known = self._pieces[token] = self._piece(token, is_special=is_written)
        return known

    def name(self, token: int) -> str:
        """How a token is written, a control token too; empty for one below 0, which is llama.cpp's word for none."""
        return self._piece(token, is_special=True).decode("utf-8", "replace") if token >= 0 else ""

    def _piece(self, token: int, *, is_special: bool) -> bytes:
        room = _PIECE_BYTES
        while True:
            text = ctypes.create_string_buffer(room)
            n_bytes = llama_cpp.llama_token_to_piece(self.pointer, token, text, room, 0, is_special)
            if n_bytes >= 0:
                return text.raw[:n_bytes]
            room = -n_bytes
