"""What a calibrated choice is compared with: the step's own prompts of other rows, or of no row at all.

The first rows of the input are a batch for batch calibration, Zhou et al. 2023, https://arxiv.org/abs/2309.17249; 10 or
more inputs are enough there. They depend on the input alone, not on what was read or done by when, so a run that goes
on, or is run again, compares with the same. They are part of each result's key.

Where there are few rows, or a step is made over something else, prompts about nothing take their place: contextual
calibration, Zhao et al. 2021, https://arxiv.org/abs/2102.09690.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from gx.core.event import InputRow
from gx.core.recipe import Step
from gx.core.view import RunState
from gx.flow.grammar import INPUTS

BATCH_ROWS = 32
"""The most rows that a step's choices are compared with. On the triage recipe 64 gave no more."""
LEAST_ROWS = 16
"""With fewer rows a row would mostly be compared with itself, or with a few that are like it."""
CONTENT_FREE = ("N/A", "", "[MASK]")
"""What stands for texts without content: Zhao et al. 2021, section 4."""


def first_rows(step: Step, run: RunState) -> list[InputRow]:
    """The first rows that can be used, of a step over the input; none of any other step."""
    usable = (row for row in run.rows if row.item is not None)
    return list(islice(usable, BATCH_ROWS)) if step.for_each == INPUTS else []


def waits(step: Step, run: RunState) -> bool:
    """Whether more of the first rows may come."""
    return step.for_each == INPUTS and not run.inputs_ended and len(first_rows(step, run)) < BATCH_ROWS


def about_nothing(names: Mapping[str, Any], nothing: str) -> dict[str, Any]:
    """What a prompt says of its row, with `nothing` in place of each text."""
    return {name: _emptied(names[name], nothing) for name in ("item", "input") if name in names}


def _emptied(value: Any, nothing: str) -> Any:
    if isinstance(value, str):
        return nothing
    if isinstance(value, dict):
        return {key: _emptied(part, nothing) for key, part in value.items()}
    return [_emptied(part, nothing) for part in value] if isinstance(value, list) else value
