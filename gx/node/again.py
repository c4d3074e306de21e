"""A run once more: what a new run is asked with, from what an old one was asked with.

Invariant: leave to spend money is not handed on. It was given for the old run; the new one has what its recipe's own
budget allows, and no more than the old one had.
"""

from __future__ import annotations

import msgspec

from gx.core.terms import Terms
from gx.node.client import Submission


def once_more(asked: Submission) -> Submission:
    """What the old run was asked with, to be asked again: with no name or token of its own, and nothing made fresh."""
    burst = None if asked.burst is None else _allowed(asked.burst, asked)
    return msgspec.structs.replace(asked, fresh=False, fresh_from=None, token="", name=None, burst=burst)


def _allowed(terms: Terms, asked: Submission) -> Terms | None:
    """The terms as far as the recipe itself allows them; what spends nothing needs no leave.

    Without any leave there are none: so a run of it that is live or goes on keeps those that it has by now.
    """
    from gx.flow.parse import parse_recipe

    if terms.mode == "off" or terms.is_rehearsal:
        return terms
    own = parse_recipe(asked.recipe_text, file=asked.recipe_file).budget.usd
    return None if own is None or terms.usd is None else msgspec.structs.replace(terms, usd=min(own, terms.usd))
