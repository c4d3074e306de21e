"""A dialogue without its oldest turns. Pure.

What it opens with stays: the agent's persona with its examples, or the row's own system messages. What is left begins
with a user's message and ends as it ended.
"""

from __future__ import annotations

from gx.core.message import Message

Chat = tuple[Message, ...]


def beginnings(chat: Chat, head: Chat) -> list[int]:
    """How many messages may be left out, from few to many: as many as stand before a user's message, but the first.

    `head` is what the agent brings to each chat.
    """
    turns = chat[_opening(chat, head) :]
    return [number for number, message in enumerate(turns) if number and message.role == "user"]


def without(chat: Chat, dropped: int, head: Chat) -> Chat:
    """The chat without the first `dropped` messages behind its opening."""
    opening = _opening(chat, head)
    return (*chat[:opening], *chat[opening + dropped :])


def _opening(chat: Chat, head: Chat) -> int:
    if head and chat[: len(head)] == head:
        return len(head)
    return next((number for number, message in enumerate(chat) if message.role != "system"), len(chat))
