"""Plays a workload to whoever answers, and measures: the same code for every peer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import anyio

from tests.bench.engine.workloads import Chat


class Reply(NamedTuple):
    text: str
    tokens_in: int
    tokens_out: int
    first_s: float  # from asking to the first token


class Measured(NamedTuple):
    """A workload's makespan, its tokens, and the 95th percentile of the time to the first token."""

    seconds: float
    tokens_in: int
    tokens_out: int
    first_p95_s: float


Messages = list[tuple[str, str]]  # (role, content)
Ask = Callable[[Messages, int, dict[str, Any] | None], Awaitable[Reply]]


async def play(chats: Sequence[Chat], ask: Ask) -> Measured:
    """Every chat as a user of its own, all at once."""
    replies: list[Reply] = []
    began_s = time.perf_counter()

    async def user(chat: Chat) -> None:
        await anyio.sleep(max(0.0, chat.at_s - (time.perf_counter() - began_s)))
        messages: Messages = [("system", chat.system)]
        for turn in chat.turns:
            messages.append(("user", turn))
            reply = await ask(messages, chat.max_tokens, chat.schema)
            replies.append(reply)
            messages.append(("assistant", reply.text))

    async with anyio.create_task_group() as users:
        for chat in chats:
            users.start_soon(user, chat)
    firsts = sorted(reply.first_s for reply in replies)
    return Measured(
        seconds=time.perf_counter() - began_s,
        tokens_in=sum(reply.tokens_in for reply in replies),
        tokens_out=sum(reply.tokens_out for reply in replies),
        first_p95_s=firsts[int(0.95 * (len(firsts) - 1))],
    )
