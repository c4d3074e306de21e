"""A chat as the text of a prompt, in the template that a model's file carries. It knows texts, and no tokens.

What a message says is text: the names of orders in it are cut (`orders`).

An agent answers, it doesn't think aloud: a template that can leave thinking out is told to, and a thought that it opens
all the same is closed at once. The room of an answer, and its shape, are the answer's.

Some templates know no system, or say nothing of what it said: there its words come before the next ones of the user.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from edge.engine.llama.library import Jinja2ChatFormatter
from edge.engine.llama.orders import MARK, Orders, taken_out
from gx.core.errors import GxError
from gx.core.message import Message

# https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md; what most tuned models were tuned on.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
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
THOUGHTS = {f"<{name}>": f"</{name}>" for name in ("think", "thought", "seed:think")} | {"[THINK]": "[/THINK]"}
"""How models begin a thought that they write all the same, and how they end it."""
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
        spoken = {name for name in others if name in text and MARK.fullmatch(name)}
        own = {name for name in spoken if name.startswith("<|")}
        self._orders = Orders({*controls, *spoken}, taken_out(text))
        self._own = Orders({*controls, *own}, taken_out(text) | (spoken - own))
        self._knows_system = self._tells_system()

    def said(self, text: str, *, is_own: bool = False) -> str:
        """What somebody says, or, if it `is_own`, the model said, with the names of orders cut.

        Where a vocabulary puts a space before each text, there is one more behind a cut.
        """
        return (self._own if is_own else self._orders).cut(text)

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
    """The chat without a system: its words come before the next ones of the user, or last where none come."""
    told, words = list[Message](), list[str]()
    for message in messages:
        if message.role == "system":
            words += [message.content] if message.content else []
        elif message.role == "user":
            told.append(Message(role="user", content="\n\n".join([*words, message.content])))
            words = []
        else:
            told.append(message)
    return [*told, Message(role="user", content="\n\n".join(words))] if words else told
