"""A dialogue without its oldest turns, or with notes in their place. Pure.

What it opens with stays: the agent's persona with its examples, or the row's own system messages. What is left begins
with a user's message and ends as it ended.
"""

from __future__ import annotations

from gx.core.message import Message

Chat = tuple[Message, ...]
PLACE = ("messages",)
"""What notes on messages are called where those on texts have the text's place."""
_NOTES = "Notes on what was said before:"


def beginnings(chat: Chat, head: Chat) -> list[int]:
    """How many messages may be left out, from few to many: as many as stand before a user's message, but the first.

    `head` is what the agent brings to each chat.
    """
    turns = chat[_opening(chat, head) :]
    return [number for number, message in enumerate(turns) if number and message.role == "user"]


def without(chat: Chat, dropped: int, head: Chat, notes: str = "") -> Chat:
    """The chat without the first `dropped` messages behind its opening; `notes` on these stand before the next one.

    That is a user's message, so the notes are in it: many chat templates have no place for a second system message.
    """
    opening = _opening(chat, head)
    begins, *rest = chat[opening + dropped :]
    if notes:
        begins = Message(role=begins.role, content=f"{_NOTES}\n{notes}\n\n{begins.content}")
    return (*chat[:opening], begins, *rest)


def transcript(chat: Chat, dropped: int, head: Chat) -> str:
    """What the first `dropped` messages behind the opening say, and who said it."""
    opening = _opening(chat, head)
    return "\n\n".join(f"{message.role}: {message.content}" for message in chat[opening : opening + dropped])


def _opening(chat: Chat, head: Chat) -> int:
    if head and chat[: len(head)] == head:
        return len(head)
    return next((number for number, message in enumerate(chat) if message.role != "system"), len(chat))
