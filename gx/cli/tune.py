"""What `gx doctor --tune` prints: every value that was measured, the chosen ones, and what they gain."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gx import output

if TYPE_CHECKING:
    from edge.trials import Calibration, Setup, Trial
    from edge.tunings import Note, Tuned
    from gx.wiring import LocalModel

BUSY = 0.5
"""Programs that wanted to run in the last minute, for each core: with more, figures are rough."""

_NAMES = {"threads": "threads", "flash attention": "flash", "tokens a pass": "pass_tokens"}
"""What was varied, and the field of a `Tuning` that it is."""


def tune(name: str) -> None:
    """Measure the model and keep the choice. :raises GxError: if there is no such model, or it can't be measured."""
    from edge import tunings
    from edge.cpu import cores
    from gx import settings as settings_module
    from gx import wiring
    from gx.core.errors import ModelError
    from gx.node.health import find_model

    settings = settings_module.load()
    model = find_model(name, settings)
    if not isinstance(model, wiring.LocalModel):
        raise ModelError(model.found, hint=model.advice)
    file = wiring.file_of(model, settings)
    is_copy = file != model.path
    output.note(f"{name}: measuring {file.name} for about a minute; nothing else should run meanwhile")
    if os.getloadavg()[0] > BUSY * cores():
        output.note(f"note: this machine is busy (load {os.getloadavg()[0]:.1f}), so the figures will be rough")
    note, tuned = tunings.make(file, model.sha256)
    output.emit(rows(tuned), columns=["what", "value", "prompt tokens/s", "tokens/s", "speed", "chosen"])
    for line in remarks(model, note, tuned, is_copy=is_copy, threads=settings.threads, slots=settings.slots):
        output.note(line)


def rows(tuned: Tuned) -> list[dict[str, Any]]:
    """One row for each measurement; `speed` is that of rows of a fleet, by the defaults'."""
    calibration = tuned.calibration
    whole_s = calibration.default_speeds.row_s
    found: list[dict[str, Any]] = []
    for trial in calibration.trials:
        row: dict[str, Any] = {"what": trial.what, "value": trial.value or _value(trial.setup)}
        if trial.speeds is not None:
            speeds = trial.speeds
            row |= {"prompt tokens/s": round(speeds.prefill), "tokens/s": round(speeds.decode)}
            row |= {"speed": f"{whole_s / speeds.row_s:.2f}×"}
        else:
            row |= {"prompt tokens/s": None, "tokens/s": None, "speed": "not possible"}
        found.append(row | {"chosen": _is_chosen(trial, calibration)})
    for copy in tuned.copies:
        speeds = copy.speeds
        row = {"what": "prepared copy", "value": copy.kind, "prompt tokens/s": round(speeds.prefill)}
        row |= {"tokens/s": round(speeds.decode), "speed": f"{whole_s / speeds.row_s:.2f}×", "chosen": False}
        found.append(row)
    return found


def remarks(
    model: LocalModel, note: Note, tuned: Tuned, *, is_copy: bool, threads: int | None, slots: int | None
) -> list[str]:
    """The choice and what else there is to do, in sentences."""
    calibration = tuned.calibration
    how = _value(calibration.chosen)
    said = [f"{model.name}: {how}; {note.gain:.2f} times as fast as the defaults"]
    said[0] += ", and what runs use from now on" if note.tuning == calibration.chosen.tuning else ""
    if calibration.chosen == calibration.trials[0].setup:
        said = [f"{model.name}: nothing that was tried is faster than the defaults ({how})"]
    if note.tuning.threads is None:
        said.append(
            f"something else took {tuned.others:.0%} of the processors, so the number of threads is left to each run: "
            "tune again when nothing else runs"
        )
    elif threads is not None and threads != note.tuning.threads:
        said.append(f"but GX_THREADS or `threads` in your settings counts more, and says {threads}")
    if note.slots != (slots or calibration.chosen.slots):
        said.append(
            f"{note.slots} slots are faster than {slots or calibration.chosen.slots}: set GX_SLOTS={note.slots}"
        )
    best = min(tuned.copies, key=lambda copy: copy.speeds.row_s, default=None)
    gain = calibration.chosen_speeds.row_s / best.speeds.row_s if best is not None else 0.0
    if best is not None and gain > 1.05:
        said.append(
            f"a {best.kind} copy of it is {gain:.1f} times as fast, and takes more memory: "
            f"gx models prepare {model.name} --as {best.kind}"
        )
    elif is_copy:
        said.append(f"this is the prepared copy of {model.name}; without it: gx models prepare {model.name} --rm")
    elif best is not None:
        said.append("no prepared copy is faster")
    elif tuned.untried:
        said.append(
            f"whether a prepared copy is faster was not tried: {tuned.untried}; `gx models prepare {model.name}` makes "
            "one, and measures both"
        )
    if calibration.left_out:
        said.append(f"the time was too short for: {', '.join(calibration.left_out)}")
    return said


def _is_chosen(trial: Trial, calibration: Calibration) -> bool:
    """Whether a value is in force from now on, or for slots, whether it should be."""
    if trial.what == "slots":
        return trial.setup.slots == calibration.slots
    name = _NAMES.get(trial.what)
    if name is None:
        return trial.what == "defaults" and trial.setup == calibration.chosen
    return bool(getattr(trial.setup.tuning, name) == getattr(calibration.chosen.tuning, name))


def _value(setup: Setup) -> str:
    tuning = setup.tuning
    flash = "off" if tuning.flash is False else "on"
    return f"{tuning.threads} threads, {tuning.pass_tokens} tokens a pass, flash attention {flash}, {setup.slots} slots"
