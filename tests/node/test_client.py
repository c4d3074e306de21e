"""How a run ended, and the exit code that says it."""

from __future__ import annotations

from typing import Any

import pytest

from gx.core.errors import GxError, InputError
from gx.core.view import RunStatus
from gx.node.client import RunEnd
from gx.output import ExitCode


def end(status: RunStatus = RunStatus.finished, **changed: Any) -> RunEnd:
    counts = dict.fromkeys(
        ("succeeded", "failed", "excused", "skipped", "cancelled", "left", "reused", "tokens_in", "tokens_out"), 0
    )
    told: dict[str, Any] = {"limit": "", "reason": "", "skipped_steps": {}, "first_errors": [], "warnings": []}
    return RunEnd(run="r", is_streamed=False, status=status, seconds=1.0, **(counts | told | changed))


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (end(), ExitCode.ok),
        (end(excused=3), ExitCode.ok),
        (end(failed=1), ExitCode.some_failed),
        (end(RunStatus.stopped, limit="budget", failed=1), ExitCode.budget),
        (end(RunStatus.stopped, limit="deadline"), ExitCode.deadline),
        (end(RunStatus.interrupted, failed=1), ExitCode.interrupted),
        (end(RunStatus.interrupted, error=GxError("no more")), ExitCode.error),
        (end(RunStatus.interrupted, error=InputError("no row")), ExitCode.usage),
    ],
)
def test_an_end_has_its_exit_code(ended: RunEnd, code: ExitCode) -> None:
    assert ended.exit_code is code
