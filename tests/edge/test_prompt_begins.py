"""A prompt begins with what the vocabulary wants at the beginning of a text, once, whatever its template does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edge.engine.llama import Model, library
from gx.core.message import Message
from tests.tiny_model import write_tiny_model

CHAT = (Message(role="user", content="Hi"),)
PLAIN = "{{ messages[0].content }}"


@pytest.mark.parametrize(
    ("template", "begins", "n_begun"),
    [(PLAIN, True, 1), ("{{ bos_token }}" + PLAIN, True, 1), (PLAIN, False, 0), ("", True, 1)],
)
def test_a_prompt_begins_as_the_vocabulary_wants(tmp_path: Path, template: str, begins: bool, n_begun: int) -> None:
    model = Model("m", str(write_tiny_model(tmp_path / "m.gguf", template=template, begins=begins)))
    tokens = model.encode(CHAT).tolist()
    begin = model.vocab.tokenize(model.vocab.name(1)).tolist()
    assert len(begin) == 1 and tokens.count(begin[0]) >= n_begun and (tokens[0] == begin[0]) == bool(n_begun)
    assert tokens[1:2] != begin
    model.close()


def test_a_thread_forgets_its_own_complaints_alone() -> None:
    library._complaints.last.append("no memory")
    other = threading.Thread(target=library.forget)
    other.start()
    other.join()
    assert library.take_complaint() == "no memory" and library.take_complaint() == "no reason given"
