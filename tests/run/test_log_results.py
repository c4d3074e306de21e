"""Equal work is found in the log, and a log that has none costs a run one question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gx.core.event import Blob, Body, NodeStopped, TaskSucceeded
from gx.core.ids import digest
from gx.run.log import EventLog, keys, reading
from gx.run.log.keys import KnownKeys

OUTPUT = Blob(digest=digest(b"output"), content=b"output")


def succeeded(*tasks: int) -> list[Body]:
    return [TaskSucceeded(run="r", task=f"t{i}", attempt=1, key=f"k{i}", output=OUTPUT.digest) for i in tasks]


def found(log: EventLog, *tasks: int, before_seq: int) -> list[str]:
    return sorted(log.find_results([f"k{i}" for i in tasks], before_seq=before_seq))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog.open(tmp_path) as log:
        yield log


@pytest.fixture
def questions(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SQL that the log was asked from now on."""
    asked: list[str] = []
    ask = log.file.ask

    def noted(sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        asked.append(sql)
        return ask(sql, parameters)

    monkeypatch.setattr(log.file, "ask", noted)
    return asked


def test_a_log_without_results_is_asked_once_a_run(log: EventLog, questions: list[str]) -> None:
    for _ in range(5):
        assert found(log, 1, 2, before_seq=0) == []
    assert len(questions) == 1


def test_what_succeeds_later_is_not_the_runs_to_find_but_the_next_ones(log: EventLog) -> None:
    assert found(log, 1, before_seq=log.last_seq) == []
    began = log.last_seq
    log.append_sync(succeeded(1), [OUTPUT], source="test")
    assert found(log, 1, before_seq=began) == []
    assert found(log, 1, before_seq=log.last_seq) == ["k1"]
    assert found(log, 1, before_seq=began) == []


def test_who_asks_often_gets_the_same_answers(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "PAGE", 3)
    log.append_sync(succeeded(1, 2, 3, 1), [OUTPUT], source="test")
    first = log.last_seq
    for _ in range(reading.FEW_QUESTIONS + 2):
        assert found(log, 0, 1, 3, 4, before_seq=first) == ["k1", "k3"]
        assert found(log, 2, before_seq=2) == ["k2"]
        assert found(log, 3, before_seq=2) == []
    log.append_sync([NodeStopped(epoch=1), *succeeded(4)], source="test")
    assert found(log, 1, 4, 5, before_seq=first) == ["k1"]
    assert found(log, 1, 4, 5, before_seq=log.last_seq) == ["k1", "k4"]


def test_new_keys_cost_no_question_once_the_old_ones_are_learnt(log: EventLog, questions: list[str]) -> None:
    log.append_sync(succeeded(1, 2), [OUTPUT], source="test")
    for _ in range(reading.FEW_QUESTIONS + 1):
        found(log, 7, 8, before_seq=log.last_seq)
    questions.clear()
    for _ in range(5):
        assert found(log, 7, 8, before_seq=log.last_seq) == []
    assert questions == []


def test_a_key_is_known_from_the_event_on_that_has_it(log: EventLog) -> None:
    log.append_sync(succeeded(1, 2), [OUTPUT], source="test")
    known = KnownKeys(log.file)
    assert known.among(["k1"]) == []
    known.learn(1)
    assert known.among(["k1", "k2", "k3"]) == ["k1"]
    known.learn(0)
    known.learn(log.last_seq)
    assert known.among(["k3", "k2", "k1"]) == ["k2", "k1"]
