"""A chat as the text of a prompt, in the template that a model's file carries. It knows texts, and no tokens.

What a message says is text. Where it spells a token that the model takes for an order, such as the end of a turn, it
could end its turn and begin another one in somebody else's name; so that name is cut in two by `CUT`, and whoever makes
tokens of the prompt makes them of what is before a cut and of what is behind it, apart.

An agent answers, it doesn't think aloud: a template that can leave thinking out is told to, and a thought that it opens
all the same is closed at once. The room of an answer, and its shape, are the answer's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from edge.engine.llama.library import Jinja2ChatFormatter
from gx.core.errors import GxError
from gx.core.message import Message

CUT = "\ufdd0"
"""A noncharacter, which no text is to hold (https://www.unicode.org/faq/private_use.html#noncharacters)."""
# https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md; what most tuned models were tuned on.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_THOUGHT = re.compile(r"<think>\s*\Z")
# https://github.com/openai/harmony: what an assistant says to the user is on the channel "final".
_HARMONY_TURN, _HARMONY_ANSWER = "<|start|>assistant", "<|channel|>final<|message|>"


class _Formatter(Jinja2ChatFormatter):
    """The chat template's runner, in which today is always the same day.

    Some templates write the date into the prompt. A turn's key covers its messages and its model, not the day, so a
    prompt that changed overnight would belie it. The day is the one that Llama 3's own template falls back on.
    """

    @staticmethod
    def strftime_now(f: str) -> str:
        return datetime(2024, 7, 26).strftime(f)


class Template:
    """A chat template, `text`. `begins` is what each prompt begins with, once.

    `controls` are the names of the tokens that are orders in any text, `others` of those that the vocabulary adds to
    words: they are orders where the template speaks in them, and not in what the model itself has said.

    :raises Exception: whatever jinja2 finds wrong about the text.
    """

    def __init__(
        self, text: str, *, eos: str, bos: str, begins: str, controls: Collection[str] = (), others: Iterable[str] = ()
    ) -> None:
        self._formatter = _Formatter(template=text, eos_token=eos, bos_token=bos)
        self._begins, self._is_harmony = begins, "<|channel|>" in text
        self._own = _any_of(controls)
        self._orders = _any_of({*controls, *(name for name in others if name in text)})

    def said(self, text: str, *, is_own: bool = False) -> str:
        """What somebody says, or, if it `is_own`, the model said, with the names of orders cut."""
        names = self._own if is_own else self._orders
        return names.sub(lambda name: name[0][0] + CUT + name[0][1:], text.replace(CUT, ""))

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt of a chat, up to where the assistant begins to answer.

        :raises GxError: (code "template") if the template refuses these messages.
        """
        chat: list[Any] = [
            {"role": m.role, "content": self.said(m.content, is_own=m.role == "assistant")}
            | ({"tool_call_id": m.call} if m.call else {})
            for m in messages
        ]
        try:
            prompt = str(self._formatter(messages=chat, enable_thinking=False).prompt)
        except Exception as error:  # templates raise whatever they like
            raise GxError(f"the model's chat template refuses these messages: {error}", code="template") from error
        if _THOUGHT.search(prompt):
            prompt = prompt.rstrip() + "\n\n</think>\n\n"
        elif self._is_harmony and prompt.endswith(_HARMONY_TURN):
            prompt += _HARMONY_ANSWER
        has_begun = prompt.startswith(self._begins) or prompt.lstrip().startswith(self._begins)
        return prompt if not prompt or has_begun else self._begins + prompt


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Whatever is one of these names, of more than one character; the longest counts."""
    found = sorted({name for name in names if len(name) > 1}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, found)) or r"(?!)")
