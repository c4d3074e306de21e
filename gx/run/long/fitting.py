"""Whether a prompt fits its model's context, and what of it goes in where it doesn't.

The bench counts the tokens of real prompts in its own tokenizer. Invariant: a prompt that comes out shortened leaves
room for its answer; one that can't be made to is left as it is, and the bench refuses it with the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from gx.core.event import Kept, Ref, Shortened
from gx.core.message import Message, ModelCard, Turn
from gx.core.ports import Near, Worker
from gx.core.recipe import Long
from gx.flow import templates
from gx.flow.long import PART_PROMPT
from gx.run.long import dialogue
from gx.run.long.condensing import Note, Part
from gx.run.long.cutting import Span, parts
from gx.run.long.nearest import nearest
from gx.run.long.texts import Place, joined, kept_of, texts

LEAST_ANSWER_TOKENS = 16
"""A prompt that leaves that much is sent as it is, as the bench takes it (`edge.engine.encoding`)."""
PART_CHARS = 1000
"""The longest part: some 250 tokens, which is what small embedding models read at once."""
LEAST_PART_CHARS = 80
LEAST_TEXT_CHARS = 200
"""A shorter text isn't worth a cut: the mark alone takes a part of that."""
NOTE_TOKENS = 256
"""The most that the notes on a part may have; an eighth of the room, where that is less."""
COUNT_AT_ONCE = 64
"""Parts whose tokens are counted in one request."""


class Wanted(NamedTuple):
    """A prompt to look at: its turn as it is, what it is made from, and how it is made with parts left out.

    `head` is what the agent brings to each chat. `notes` are those on the
    parts of its texts, where these were condensed already.
    """

    turn: Turn
    names: Mapping[str, Any]
    long: Long
    head: tuple[Message, ...]
    is_dialogue: bool
    make: Callable[[Shortened], Turn]
    notes: Sequence[Note] = ()


class _Piece(NamedTuple):
    """A part of a text: which of the texts, which part of it, and its characters."""

    text: int
    number: int
    body: str


async def shortened(
    wanted: Wanted, worker: Worker, near: Near | None, tell: Callable[[str], None] = lambda note: None
) -> Shortened | tuple[Part, ...] | None:
    """What of the prompt goes in; `None` where all of it fits, or nothing would help; or parts to condense first.

    `tell` is called with what takes a while, before it does.

    :raises GxError: if the model can't be used, or a bench is lost.
    """
    card = await worker.describe(wanted.turn.model)
    (tokens,) = await worker.count(wanted.turn.model, [wanted.turn.messages])
    if tokens <= card.context_tokens - LEAST_ANSWER_TOKENS:
        return None
    fitting = _Fitting(wanted, worker, near, card, tokens, tell)
    if wanted.is_dialogue:
        if wanted.long.dialogue == "summarise":
            return await fitting.summarise()
        return await fitting.drop() if wanted.long.dialogue == "drop" else None
    if wanted.long.how == "reduce":
        return await fitting.condense()
    return await fitting.retrieve() if wanted.long.how == "retrieve" else None


def room_tokens(turn: Turn, context_tokens: int) -> int:
    """What a shortened prompt may have: its answer is left what it may take, and half of the context at most."""
    if turn.choice is not None:
        return context_tokens - LEAST_ANSWER_TOKENS
    return context_tokens - min(max(turn.sampling.max_tokens, LEAST_ANSWER_TOKENS), context_tokens // 2)


class _Fitting:
    """One prompt that has too many `tokens`."""

    def __init__(
        self,
        wanted: Wanted,
        worker: Worker,
        near: Near | None,
        card: ModelCard,
        tokens: int,
        tell: Callable[[str], None],
    ) -> None:
        self._wanted, self._worker, self._near, self._tell = wanted, worker, near, tell
        self._context, self._tokens = card.context_tokens, tokens
        self._room = room_tokens(wanted.turn, card.context_tokens)

    # ── dialogues ────────────────────────────────────────────────────────────────────────────────────────────────

    async def drop(self) -> Shortened | None:
        """Leave out as few of the oldest turns as need be."""
        dropped, tokens = await self._dropped(self._room)
        return self._made(kept=tokens, dropped=dropped) if dropped else None

    async def summarise(self) -> Shortened | tuple[Part, ...] | None:
        """Put notes in the place of the oldest turns; their parts, as long as there are no notes that fit."""
        chat, head, known, tokens = self._wanted.turn.messages, self._wanted.head, self._wanted.notes, self._tokens
        if known:
            dropped, body = int(known[0].field[-1]), joined(note.text for note in known)
            refs = tuple(note.ref for note in known)
            texts = (Kept(field=dialogue.PLACE, spans=(), left_out=(0,), of=len(refs), notes=refs),)
            if (tokens := await self._count(self._made(texts=texts, dropped=dropped))) <= self._room:
                return self._made(kept=tokens, texts=texts, dropped=dropped)
        else:
            dropped, _ = await self._dropped(self._room - 2 * self._note_tokens)
            body = dialogue.transcript(chat, dropped, head)
        if not dropped:
            return None
        found = await self._parts(chat[-1].content, {(*dialogue.PLACE, dropped): body}, tokens)
        return None if known and len(found) >= len(known) else found or None

    @property
    def _note_tokens(self) -> int:
        """The most that the notes on a part may have."""
        return max(min(NOTE_TOKENS, self._room // 8), LEAST_ANSWER_TOKENS)

    async def _dropped(self, room: int) -> tuple[int, int]:
        """As few of the oldest messages as leave a chat of at most `room` tokens, and its tokens; 0 if none do."""
        choices = dialogue.beginnings(self._wanted.turn.messages, self._wanted.head)
        low, high = 0, len(choices)
        tokens = dict[int, int]()
        while low < high:
            middle = (low + high) // 2
            tokens[middle] = await self._count(self._made(dropped=choices[middle]))
            low, high = (low, middle) if tokens[middle] <= room else (middle + 1, high)
        return (0, self._tokens) if low == len(choices) else (choices[low], tokens[low])

    # ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def retrieve(self) -> Shortened | None:
        """Put in the parts of the longest texts that are nearest to the rest of the prompt."""
        places, cuts, base = await self._cut()
        if not places or base >= self._room:
            return None
        pieces = [
            _Piece(text, number, body[start:stop])
            for text, ((_, body), spans) in enumerate(zip(places, cuts, strict=True))
            for number, (start, stop) in enumerate(spans)
        ]
        bodies = [piece.body for piece in pieces]
        order, without = await nearest(self._question(places), bodies, self._near, self._tell)
        most = await self._estimated(pieces, order, self._room - base)
        while most > 0:
            chosen = [pieces[number] for number in order[:most]]
            made = self._made(texts=_kept(places, cuts, chosen), without=without)
            if (tokens := await self._count(made)) <= self._room:
                return self._made(kept=tokens, texts=made.texts, without=without)
            most = min(most - 1, most * (self._room - base) // max(tokens - base, 1))
        return None

    # ── notes ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def condense(self) -> Shortened | tuple[Part, ...] | None:
        """Put in the notes on the parts of the longest texts; the parts, as long as there are no notes that fit."""
        bodies, of, tokens = dict[Place, str](), len(self._wanted.notes), self._tokens
        if self._wanted.notes:
            for place in dict.fromkeys(note.field for note in self._wanted.notes):
                bodies[place] = joined(note.text for note in self._wanted.notes if note.field == place)
            made = self._made(texts=self._noted())
            if (tokens := await self._count(made)) <= self._room:
                return self._made(kept=tokens, texts=made.texts)
        else:
            bodies = dict((await self._cut())[0])
        found = await self._parts(self._question(list(bodies.items())), bodies, tokens)
        return None if not found or (of and len(found) >= of) else found

    def _noted(self) -> tuple[Kept, ...]:
        """The texts with the notes on their parts in their place."""
        refs: dict[Place, list[Ref]] = {}
        for note in self._wanted.notes:
            refs.setdefault(note.field, []).append(note.ref)
        return tuple(
            Kept(field=place, spans=(), left_out=(0,), of=len(found), notes=tuple(found))
            for place, found in refs.items()
        )

    async def _parts(self, request: str, bodies: Mapping[Place, str], tokens: int) -> tuple[Part, ...]:
        """The texts in parts that each fit beside the request and their notes; none where none would.

        The prompt has so many `tokens` with all of them.
        """
        note = self._note_tokens
        room = self._context - note
        (around,) = await self._worker.count(self._wanted.turn.model, [self._asked(_part(request, note, "", 999, 999))])
        size = int((room - around) * sum(map(len, bodies.values())) / max(tokens, 1))
        while size >= LEAST_PART_CHARS:
            cut = [(place, body[a:b]) for place, body in bodies.items() for a, b in parts(body, size)]
            made = tuple(
                msgspec.structs.replace(_part(request, note, body, number, len(cut)), field=place)
                for number, (place, body) in enumerate(cut, 1)
            )
            longest = max(await self._worker.count(self._wanted.turn.model, [self._asked(part) for part in made]))
            if longest <= room:
                return made
            size = min(size - 1, int(size * (room - around) / max(longest - around, 1) * 0.95))
        return ()

    def _asked(self, part: Part) -> tuple[Message, ...]:
        """The prompt of a part, as its task will have it."""
        text = templates.render(PART_PROMPT, {"item": msgspec.to_builtins(part)})
        return (*self._wanted.head, Message(role="user", content=text))

    async def _cut(self) -> tuple[list[tuple[Place, str]], list[tuple[Span, ...]], int]:
        """The texts that are cut, their parts, and the tokens of the prompt without any of these.

        As few of the longest texts as leave half of the room to their parts; more where they leave less.
        """
        size = max(min(PART_CHARS, self._room // 2), LEAST_PART_CHARS)
        places: list[tuple[Place, str]] = []
        cuts: list[tuple[Span, ...]] = []
        base = self._tokens
        for place, body in texts(self._wanted.names, LEAST_TEXT_CHARS, self._wanted.long.field):
            spans = parts(body, size)
            tokens = await self._count(self._made(texts=_kept([*places, (place, body)], [*cuts, spans], ())))
            if tokens >= base:  # the prompt doesn't have it
                continue
            places, cuts, base = [*places, (place, body)], [*cuts, spans], tokens
            if base <= self._room // 2:
                break
        return places, cuts, base

    def _question(self, places: Sequence[tuple[Place, str]]) -> str:
        """The rest of the prompt: what it is without the texts that are cut."""
        empty = tuple(Kept(field=place, spans=(), left_out=(0,), of=1) for place, _ in places)
        return self._wanted.make(self._made(texts=empty)).messages[-1].content

    async def _estimated(self, pieces: Sequence[_Piece], order: Sequence[int], room: int) -> int:
        """About how many of the first parts there is room for."""
        model, taken = self._wanted.turn.model, 0
        (around,) = await self._worker.count(model, [_alone("")])
        for start in range(0, len(order), COUNT_AT_ONCE):
            some = order[start : start + COUNT_AT_ONCE]
            counts = await self._worker.count(model, [_alone(pieces[number].body) for number in some])
            for number, tokens in enumerate(counts, start):
                taken += tokens - around
                if taken > room:
                    return max(number, 1)
        return len(order)

    # ── what is counted ──────────────────────────────────────────────────────────────────────────────────────────

    async def _count(self, made: Shortened) -> int:
        turn = self._wanted.make(made)
        return (await self._worker.count(turn.model, [turn.messages]))[0]

    def _made(
        self, *, kept: int = 0, texts: tuple[Kept, ...] = (), dropped: int = 0, without: tuple[str, ...] = ()
    ) -> Shortened:
        return Shortened(
            model=self._wanted.turn.model,
            context_tokens=self._context,
            tokens=self._tokens,
            tokens_kept=kept,
            texts=texts,
            dropped=dropped,
            messages=len(self._wanted.turn.messages) if dropped else 0,
            without=without,
        )


def _kept(
    places: Sequence[tuple[Place, str]], cuts: Sequence[tuple[Span, ...]], chosen: Sequence[_Piece]
) -> tuple[Kept, ...]:
    return tuple(
        kept_of(place, spans, {piece.number for piece in chosen if piece.text == text})
        for text, ((place, _), spans) in enumerate(zip(places, cuts, strict=True))
    )


def _part(request: str, tokens: int, body: str, number: int, of: int) -> Part:
    words = max(tokens * 2 // 3, 8)  # of English, in today's vocabularies
    return Part(field=(), number=number, of=of, part=body, request=request.strip(), words=words, tokens=tokens)


def _alone(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)
