"""A chat as the text of a prompt, in the template that a model's file carries. It knows texts, and no tokens.

What a message says is text. Where it spells a token that the model takes for an order, such as the end of a turn, it
could end its turn and begin another one in somebody else's name; so that name is cut in two by `CUT`, and whoever makes
tokens of the prompt makes them of what is before a cut and of what is behind it, apart.

An agent answers, it doesn't think aloud: a template that can leave thinking out is told to, and a thought that it opens
all the same is closed at once. The room of an answer, and its shape, are the answer's.

Some templates know no system, or say nothing of what it said: there its words come before the user's first ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import takewhile
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
_MARK = re.compile(r"<[^<>\[\]\s]{1,64}>|\[[^<>\[\]\s]{1,64}\]")
"""What names of orders look like, and what is looked at in a text; no mark is a part of another one."""
_TAKES_OUT = re.compile(r"""replace\((['"]).*?\1,\s*(''|"")\)""")
"""A template that takes something out of what was said may join what was before it and behind it to a name."""
_UNTHINKING: dict[str, Any] = {
    "enable_thinking": False,
    "thinking": False,
    "thinking_mode": "disabled",
    "thinking_budget": 0,
    "skip_thinking": True,
}
"""The names under which templates are told to leave thinking out. Each looks at its own one."""
_THOUGHT = re.compile(r"<(think|thought)>\s*\Z|<\|START_(THINKING)\|>\Z")
_PROBE = "sentence that a system says"
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
    words: they are orders where they are marks, and the template speaks in them. In what the model itself has said,
    only those of OpenAI's kind are, since templates look there for others, such as the end of a thought.

    :raises Exception: whatever jinja2 finds wrong about the text.
    """

    def __init__(
        self, text: str, *, eos: str, bos: str, begins: str, controls: Collection[str] = (), others: Iterable[str] = ()
    ) -> None:
        self._formatter = _Formatter(template=text, eos_token=eos, bos_token=bos)
        self._begins, self._is_harmony = begins, "<|channel|>" in text
        self._takes_out = _TAKES_OUT.search(text) is not None
        spoken = {name for name in others if name in text and _MARK.fullmatch(name)}
        self._orders = _Names({*controls, *spoken})
        self._own = _Names({*controls, *(name for name in spoken if name.startswith("<|"))})
        self._knows_system = self._tells_system()

    def said(self, text: str, *, is_own: bool = False) -> str:
        """What somebody says, or, if it `is_own`, the model said, with the names of orders cut.

        Where a vocabulary puts a space before each text, there is one more behind a cut.
        """
        names = self._own if is_own else self._orders
        text = names.cut(text.replace(CUT, ""))
        return re.sub(r"([<\[])(?!\ufdd0)", rf"\1{CUT}", text) if self._takes_out else text

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt of a chat, up to where the assistant begins to answer.

        :raises GxError: (code "template") if the template refuses these messages.
        """
        try:
            prompt = self._formatted(messages if self._knows_system else _told_by_user(messages))
        except Exception as error:  # templates raise whatever they like
            raise GxError(f"the model's chat template refuses these messages: {error}", code="template") from error
        if (thought := _THOUGHT.search(prompt)) is not None:
            prompt = f"{prompt.rstrip()}\n\n</{thought[1]}>\n\n" if thought[1] else f"{prompt}<|END_{thought[2]}|>"
        elif self._is_harmony and prompt.endswith(_HARMONY_TURN):
            prompt += _HARMONY_ANSWER
        has_begun = prompt.startswith(self._begins) or prompt.lstrip().startswith(self._begins)
        return prompt if not prompt or has_begun else self._begins + prompt

    def _formatted(self, messages: Sequence[Message]) -> str:
        chat: list[Any] = [
            {"role": m.role, "content": self.said(m.content, is_own=m.role == "assistant")}
            | ({"tool_call_id": m.call} if m.call else {})
            for m in messages
        ]
        return str(self._formatter(messages=chat, **_UNTHINKING).prompt)

    def _tells_system(self) -> bool:
        """Whether the template tells the model what a system says; true, too, where it tells nothing of anybody."""
        user = Message(role="user", content=_PROBE)
        system = Message(role="system", content=f"A {_PROBE}.")
        try:
            if _PROBE not in self._formatted([user]):
                return True
        except Exception:  # noqa: BLE001 - it wants another chat than this, and says so when it gets one
            return True
        try:
            return system.content in self._formatted([system, Message(role="user", content="?")])
        except Exception:  # noqa: BLE001 - templates raise whatever they like
            return False


def _told_by_user(messages: Sequence[Message]) -> Sequence[Message]:
    """The chat without a system, whose words come before the first ones of the user, if these come next."""
    said = list(takewhile(lambda message: message.role == "system", messages))
    if not said or len(said) == len(messages) or messages[len(said)].role != "user":
        return messages
    words = "\n\n".join(message.content for message in [*said, messages[len(said)]])
    return [Message(role="user", content=words), *messages[len(said) + 1 :]]


class _Names:
    """Names that are to be cut: marks are looked up, since a vocabulary may have thousands; the others are few."""

    def __init__(self, names: Collection[str]) -> None:
        self._marks = {name for name in names if _MARK.fullmatch(name)}
        longest_first = sorted((name for name in names if name not in self._marks and len(name) > 1), key=len)[::-1]
        self._rest = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def cut(self, text: str) -> str:
        text = self._rest.sub(lambda found: _halved(found[0]), text)
        return _MARK.sub(lambda found: _halved(found[0]) if found[0] in self._marks else found[0], text)


def _halved(name: str) -> str:
    return name[0] + CUT + name[1:]
