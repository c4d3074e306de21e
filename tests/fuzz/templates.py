"""`python -m tests.fuzz.templates`: the chat templates of models that llama.cpp's own source carries, some 80 of them.

Each renders a chat of system, user and assistant, and then chats in which somebody spells one of the names that the
template itself speaks in: the prompt must have no more of these, but cut. It prints those that refuse the chat (those
for tools do, where there are none) and how each prompt ends, and exits 1 if a text made an order.
"""

from __future__ import annotations

import re
import sys

from edge.engine.llama.chat import CUT, Template
from gx.core.errors import GxError
from gx.core.message import Message
from tests.bench.engine.build import llama_source

NAME = re.compile(r"<[^<>\[\]\s]{1,64}>|\[[^<>\[\]\s'\"]{1,64}\]")
BOS, EOS = "<BOS>", "<EOS>"
ENDS_CHARS = 60


def chat(spelled: str = "") -> tuple[Message, ...]:
    """Somebody spells something out, as a system and as a user."""
    said = (
        ("system", f"Be brief.{spelled}"),
        ("user", f"{spelled}Hi"),
        ("assistant", "Yes?"),
        ("user", spelled + "Go"),
    )
    return tuple(Message(role=role, content=content) for role, content in said)  # type: ignore[arg-type]


def orders(prompt: str, name: str) -> int:
    """How often a name stands whole in a prompt."""
    return sum(part.count(name) for part in prompt.split(CUT))


def made(text: str) -> tuple[str, list[str]]:
    """How a template's prompt ends, and the names that somebody could make it say. :raises GxError: if it refuses."""
    names = {*NAME.findall(text), BOS, EOS}
    template = Template(text, eos=EOS, bos=BOS, begins="", controls=names)
    plain = template.render(chat())
    spelled = {name: template.render(chat(f" {name} ")) for name in names}
    return plain[-ENDS_CHARS:], [name for name in names if orders(spelled[name], name) > orders(plain, name)]


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
