"""`python -m tests.fuzz.templates`: the chat templates of models that llama.cpp's own source carries, some 70 of them.

Each renders a chat of system, user and assistant, and then chats in which somebody spells one of the names that the
template itself speaks in, also around another one: the prompt must have no more of these, but cut. It prints those that
refuse the chat (those for tools do, where there are none), and how each prompt ends, and exits 1 if a text made an
order.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from edge.engine.llama.chat import Template
from edge.engine.llama.orders import CUT, taken_out
from gx.core.errors import GxError
from gx.core.message import Message
from tests.bench.engine.build import llama_source

NAME = re.compile(r"<[^<>\[\]\s]{1,64}>|\[[^<>\[\]\s'\"]{1,64}\]")
BOS, EOS = "<BOS>", "<EOS>"
ENDS_CHARS = 60


def chat(said: str = "", *, own: str = "") -> tuple[Message, ...]:
    """Somebody says something, as a system and as a user, and the model its `own`."""
    spoken = (("system", f"Hm.{said}"), ("user", f"{said}Hi"), ("assistant", f"Yes?{own}"), ("user", f"{said}Go"))
    return tuple(Message(role=role, content=content) for role, content in spoken)  # type: ignore[arg-type]


def orders(prompt: str, name: str) -> int:
    """How often a name stands whole in a prompt."""
    return sum(part.count(name) for part in prompt.split(CUT))


def spelled(name: str, others: Iterable[str]) -> str:
    """A name, and that name around each of the others, which a template may take out."""
    middle = len(name) // 2
    return " ".join([name, *(f"{name[:middle]}{other}{name[middle:]}" for other in others)])


def made(text: str) -> tuple[str, list[str]]:
    """How a template's prompt ends, and the names that somebody could make it say. :raises GxError: if it refuses."""
    names = sorted({*NAME.findall(text), BOS, EOS})
    removed = {*names, *taken_out(text)}
    mixed = Template(text, eos=EOS, bos=BOS, begins="", controls=[BOS, EOS], others=names)
    strict = Template(text, eos=EOS, bos=BOS, begins="", controls=names)
    plain, found = strict.render(chat()), list[str]()
    for name in names:
        hostile = f" {spelled(name, removed)} "
        prompts = [strict.render(chat(hostile, own=hostile)), mixed.render(chat(hostile))]
        if name in (BOS, EOS) or name.startswith("<|"):
            prompts.append(mixed.render(chat(own=hostile)))
        if any(orders(prompt, name) > orders(plain, name) for prompt in prompts):
            found.append(name)
    return plain[-ENDS_CHARS:], found


def main() -> None:
    found = 0
    for path in sorted((llama_source() / "models" / "templates").glob("*.jinja")):
        try:
            end, injected = made(path.read_text())
        except GxError as error:
            sys.stdout.write(f"{path.stem}: refused: {error}\n")
            continue
        found += len(injected)
        sys.stdout.write(f"{path.stem}: {', '.join(injected) + ' INJECTED' if injected else repr(end)}\n")
    sys.exit(found > 0)


if __name__ == "__main__":
    main()
