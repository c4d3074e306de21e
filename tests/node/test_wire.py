"""Values between a node and its clients come out as they went in: errors, records, ends, frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gx.core import errors
from gx.core.errors import GxError, RecipeError
from gx.core.task import CloudLease, EdgeLease, Status
from gx.core.view import RunStatus, TaskState
from gx.node import problem, wire
from gx.node.client import Progress, RunEnd, Submission
from gx.run.record import Record
from gx.settings import Settings

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
KINDS = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GxError)),
    key=lambda kind: kind.__name__,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
CONTENT = st.none() | JSON.map(msgspec.json.encode)
counts = st.integers(0, 2**53)


def through(value: Any, kind: Any) -> Any:
    return problem.decode(problem.encode(value), kind)


def fields(error: GxError) -> dict[str, Any]:
    place = ("file", "line", "col", "snippet", "place") if isinstance(error, RecipeError) else ()
    return {name: getattr(error, name) for name in ("message", "hint", "code", *place)}


def task(**more: Any) -> TaskState:
    return TaskState(id="0f" * 8, step="s", path="1", index=1, row_id="r1", order=0, **more)


def end(**more: Any) -> RunEnd:
    names = ("succeeded", "failed", "excused", "skipped", "cancelled", "left", "reused", "tokens_in", "tokens_out")
    told: dict[str, Any] = dict.fromkeys(names, 3) | {"limit": "budget", "reason": "spent", "skipped_steps": {"s": "x"}}
    told |= {"first_errors": [("r1", "code", "message")], "warnings": ["slow"], "seconds": 1.5}
    return RunEnd(run="r", is_streamed=True, **({"status": RunStatus.stopped} | told | more))


def test_the_tree_of_errors_is_known_whole() -> None:
    assert GxError in KINDS
    assert len(KINDS) == 12


@pytest.mark.parametrize("kind", KINDS)
@given(message=TEXTS, hint=TEXTS, code=TEXTS.filter(bool))
def test_an_error_is_the_same_error_at_the_other_end(kind: type[GxError], message: str, hint: str, code: str) -> None:
    made = [kind(message, hint=hint)]
    if kind is not RecipeError:
        made.append(kind(message, hint=hint, code=code))
    for error in made:
        found = problem.error_of(through(problem.problem_of(error), problem.Problem))
        assert type(found) is kind
        assert str(found) == str(error)
        assert fields(found) == fields(error)


@given(TEXTS, st.none() | counts, st.none() | counts, TEXTS)
def test_a_recipe_s_error_keeps_its_place(file: str, line: int | None, col: int | None, snippet: str) -> None:
    error = RecipeError("bad", file=file, line=line, col=col, snippet=snippet, hint="do")
    found = problem.error_of(through(problem.problem_of(error), problem.Problem))
    assert isinstance(found, RecipeError)
    assert fields(found) == fields(error)


@pytest.mark.parametrize("kind", ["Vanished", "annotations", "__doc__", "", "object"])
def test_an_error_of_another_gx_is_an_error_all_the_same(kind: str) -> None:
    found = problem.error_of(problem.Problem(kind=kind, message="what", code="new.code", hint="do"))
    assert type(found) is GxError
    assert fields(found) == {"message": "what", "code": "new.code", "hint": "do"}


@given(st.lists(st.tuples(CONTENT, CONTENT, CONTENT), max_size=4))
def test_records_come_out_as_they_went_in(contents: list[tuple[bytes | None, ...]]) -> None:
    records = [Record(task=task(), output=o, input=i, likelihoods=told) for o, i, told in contents]
    found = through(wire.results_of(records), wire.Frame)
    assert [wire.record_of(result) for result in found.results] == records


def test_an_answer_that_is_null_is_an_answer() -> None:
    done = task(status=Status.succeeded, output="ab", tokens_out=1)
    (found,) = through(wire.results_of([Record(task=done, output=b"null", input=None)]), wire.Frame).results
    record = wire.record_of(found)
    assert (record.output, record.input, record.likelihoods) == (b"null", None, None)
    assert record.as_dict()["output"] is None
    assert "error" not in record.as_dict()


@pytest.mark.parametrize("lease", [None, EdgeLease(epoch=2, incarnation=3), CloudLease(call="c", gpu="L4")])
def test_a_task_travels_whole(lease: Any) -> None:
    whole = task(
        item="i", input="j", is_batch=True, matrix={"x": [1, None]}, level=2, span=(3, 4), status=Status.failed,
        attempt=7, failures=1, losses=2, losses_alone=1, is_alone=True, key="k", worker="w", lease=lease,
        error=("c", "m"), cached="t", finish="length", tokens_in=1, tokens_out=2, ms=0.5,
    )  # fmt: skip
    (found,) = through(wire.results_of([Record(task=whole)]), wire.Frame).results
    assert found.task == whole


@pytest.mark.parametrize("status", RunStatus)
@pytest.mark.parametrize(
    "error",
    [None, GxError("what", hint="do", code="node"), RecipeError("bad", file="f", line=1, col=2, snippet="x: y")],
)
def test_a_run_s_end_travels_with_what_went_wrong(status: RunStatus, error: GxError | None) -> None:
    whole = end(status=status, error=error)
    found = wire.ended(through(wire.ending(whole), wire.End))
    assert found.exit_code is whole.exit_code
    assert (found.error is None) == (error is None)
    if error is not None:
        assert found.error is not None
        assert fields(found.error) == fields(error)
        assert type(found.error) is type(error)
    assert msgspec.structs.replace(found, error=None) == msgspec.structs.replace(whole, error=None)


def test_a_frame_says_only_what_it_has() -> None:
    assert problem.encode(wire.Frame()) == b"{}"
    assert json.loads(problem.encode(wire.Frame(warning="slow"))) == {"warning": "slow"}
    now = Progress(
        done=1, failed=0, reused=0, running=2, total=9, is_total_final=False, tokens_in=5, tokens_out=6, elapsed_s=0.5
    )
    frame = wire.Frame(progress=now, end=wire.ending(end()))
    assert through(frame, wire.Frame) == frame


def test_what_was_asked_for_travels_whole() -> None:
    wanted = Submission(
        recipe_text="ü", recipe_file="r.yaml", recipe_folder="/a", folder="/b", params={"x": "1"}, inputs="-",
        input_format="jsonl", limit=1, sample=2, name="n", fresh=True, deadline_s=1.5, budget_tokens=7, token="ab" * 6,
        is_detached=True, priority=2.5, by="me",
    )  # fmt: skip
    settings = Settings(workspace=Path("/w"), models_dir=Path("/m"), threads=2)
    asked = wire.Asked(submission=wanted, settings=settings)
    assert through(asked, wire.Asked) == asked


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"kind": 1, "message": ""}', b'{"kind": "x"}', b"\xff"])
def test_what_is_no_value_is_refused(content: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        problem.decode(content, problem.Problem)
