"""The parts of a text in the order of their nearness to what is asked: by words, and those first by meaning, too.

It asks for vectors where somebody makes them, and knows nothing of models or prompts. Invariant: what a ranking was
without is said with it, and what takes a while before it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gx.core.ports import Near
from gx.run.long.ranking import by_words, ranked

MOST_EMBEDDED = 128
"""Parts of one prompt that get a vector, some 0.2 s of a processor each: of more, those that words find first."""
COMPARING = "parts of prompts that are longer than the context are compared with what is asked, which takes a while"
NOT_ALL = f"by meaning only the {MOST_EMBEDDED} parts of a prompt that words find first were compared"


async def nearest(
    question: str, bodies: Sequence[str], near: Near | None, tell: Callable[[str], None]
) -> tuple[list[int], tuple[str, ...]]:
    """The numbers of the parts, the nearest first, and what that was without; `tell` is called before it takes long."""
    if near is None or not question.strip():
        return ranked(question, bodies, None), ()
    scores = by_words(question, bodies)
    asked = sorted(range(len(bodies)), key=lambda number: (-scores[number], number))[:MOST_EMBEDDED]
    found, notes = await near.near(question, [])  # whether anybody embeds
    if found is not None:
        tell(COMPARING)
        found, notes = await near.near(question, [bodies[number] for number in asked])
    if found is None:
        return ranked(question, bodies, None), notes
    if len(asked) < len(bodies):
        notes = (*notes, NOT_ALL)
    first = ranked(question, [bodies[number] for number in asked], found)
    return [asked[number] for number in first] + sorted(set(range(len(bodies))).difference(asked)), notes
