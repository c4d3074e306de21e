"""What was promised of a killed run, as claims over its records and its log.

It knows texts, records and events; nothing of processes or kills. Rows with equal texts have equal keys, so a text
stands here for all of its rows, in whichever run they are: each is computed once in a workspace, unless its result was
erased, and is the same wherever it is printed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from gx.core.errors import WorkspaceError
from gx.node.reader import Reader, reading
from gx.node.workspace import Workspace

POISON = "the row that kills its bench"
ANSWER_S = 60.0
T = TypeVar("T")
Record = dict[str, Any]
Result = tuple[str, Any, str | None]
"""Status, output and error code of a record."""
_SUCCEEDED = "SELECT * FROM events WHERE type = 'task.succeeded'"
_ENDED = "SELECT * FROM events WHERE type IN ('task.succeeded', 'task.failed')"
_QUEUED = "SELECT seq, task, data->>'$.id' AS row, data->>'$.step' AS step FROM events WHERE type = 'task.queued'"


class Broken(AssertionError):
    """A promise that was not kept."""


def claim(is_kept: bool, otherwise: str) -> None:
    """:raises Broken: if it is not kept."""
    if not is_kept:
        raise Broken(otherwise)


def records_of(lines: list[bytes]) -> dict[str, Record]:
    """The whole lines that were printed, by row id. :raises Broken: if a row was printed twice."""
    found = [json.loads(line) for line in lines if line.endswith(b"\n")]
    by_id = {record["id"]: record for record in found}
    claim(len(by_id) == len(found), "a row was printed twice")
    return by_id


class Acknowledged:
    """The results that were printed, by text: each stands in the log, and no record contradicts another."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._results: dict[str, Result] = {}

    def add(self, records: Mapping[str, Record]) -> None:
        """Take what a process printed of the rows. :raises Broken: if a record is bad, or another than before."""
        for name, record in records.items():
            text = self._texts[name]
            result = (record["status"], record.get("output"), record.get("error", {}).get("code"))
            if text == POISON:
                claim(result == ("failed", None, "crashed"), f"not crashed: {record}")
            else:
                claim(result[0] == "succeeded" and result[2] is None, f"expected a success: {record}")
            before = self._results.setdefault(text, result)
            claim(before == result, f"{name} ({text}) was {before} and now is {record}")

    def check(self, workspace: Path) -> None:
        """:raises Broken: if the log, be it written or not, is not whole, or does not hold what was printed."""
        printed = {text for text, result in self._results.items() if result[0] == "succeeded"}
        if not printed and not has_log(workspace):
            return
        rows = answered(workspace, _whole)
        missing = printed - {self._texts.get(row) for (row,) in rows}
        claim(not missing, f"printed, and not in the log: {missing}")

    def forget_erased(self, workspace: Path) -> int:
        """Let go of the texts that have no result any more: they may be computed again. How many those were."""
        sql = f"""SELECT any_value(q.row), list(DISTINCT s.data->>'$.output')
            FROM ({_SUCCEEDED}) s JOIN ({_QUEUED}) q USING (task) GROUP BY s.key"""
        rows, digests = answered(workspace, lambda log: (log.ask(sql), log.ask("SELECT digest FROM blobs")))
        kept = {digest for (digest,) in digests}
        gone = {self._texts.get(row, "") for row, outputs in rows if kept.isdisjoint(outputs)}
        return sum(self._results.pop(text, None) is not None for text in gone)


def _whole(log: Log) -> list[tuple[Any, ...]]:
    """The rows that have a result, of a log that is whole."""
    _check_chain(log)
    return log.ask(f"SELECT DISTINCT q.row FROM ({_SUCCEEDED}) JOIN ({_QUEUED}) q USING (task)")


class Log:
    """What a workspace's log says, whoever holds it."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of the answer."""
        return [tuple(row.values()) for row in self.reader.table(sql, timeout_s=ANSWER_S, max_rows=None).rows]


@contextmanager
def log_of(workspace: Path) -> Iterator[Log]:
    """The log, asked of the node while one is up, else of the file, which a node may be about to let go."""
    with reading(Workspace(workspace), wait_s=ANSWER_S) as reader:
        yield Log(reader)


def answered(workspace: Path, question: Callable[[Log], T]) -> T:
    """What the log answers; asked again if the node leaves meanwhile."""
    while True:
        try:
            with log_of(workspace) as log:
                return question(log)
        except WorkspaceError as error:
            if error.code != "workspace.gone":
                raise


def has_log(workspace: Path) -> bool:
    """Whether a process lived long enough to make a log."""
    return (workspace / "log.duckdb").exists()


def tasks_of(workspace: Path) -> list[str]:
    """All tasks of the log, in the order of their queueing; none where there is no log."""
    if not has_log(workspace):
        return []
    return [task for (task,) in answered(workspace, lambda log: log.ask(f"SELECT task FROM ({_QUEUED}) ORDER BY seq"))]


def check_log(workspace: Path, texts: Mapping[str, str]) -> None:
    """The promises that only the log can tell of, once all runs over `texts` have ended."""

    def check(log: Log) -> None:
        _check_chain(log)
        _check_epochs(log)
        twice = log.ask(f"SELECT task, count(*) FROM ({_ENDED}) GROUP BY task HAVING count(*) <> 1")
        claim(not twice, f"tasks that ended more than once: {twice[:5]}")
        late = log.ask(
            f"SELECT l.task FROM events l JOIN ({_ENDED}) s USING (task) WHERE l.type = 'task.leased' AND l.seq > s.seq"
        )
        claim(not late, f"tasks that were leased after their end: {late[:5]}")
        _check_computed(log)
        _check_texts(log, texts)

    answered(workspace, check)


def _check_chain(log: Log) -> None:
    report = log.reader.verify()
    claim(report.is_whole, f"the log is not whole: {report.problems}, {report.lost} lost")


def _check_epochs(log: Log) -> None:
    """Each number stands once and none is left out, and once a node has written, no earlier one does."""
    ((count, distinct, last),) = log.ask("SELECT count(*), count(DISTINCT seq), max(seq) FROM events")
    claim(count == distinct == last + 1, f"{count} events with {distinct} numbers up to {last}")
    sql = "SELECT seq, cast(split_part(source, ':', 2) AS INT) AS epoch FROM events WHERE source LIKE 'node:%'"
    late = log.ask(
        f"""SELECT seq, epoch, reached FROM
        (SELECT *, max(epoch) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) AS reached FROM ({sql}))
        WHERE epoch < reached"""
    )
    claim(not late, f"a node wrote after the next one had begun: {late[:5]}")
    starts = "SELECT (data->>'$.epoch')::INT AS epoch FROM events WHERE type = 'node.started'"
    twice = log.ask(f"SELECT epoch FROM ({starts}) GROUP BY epoch HAVING count(*) > 1")
    claim(not twice, f"epochs that two nodes had: {twice}")


def _check_computed(log: Log) -> None:
    """A key is computed again only after its result was erased."""
    sql = "SELECT seq, json_extract_string(data, '$.blobs[*]') FROM events WHERE type = 'content.erased'"
    erased = [(seq, set(blobs)) for seq, blobs in log.ask(sql)]
    before: dict[str, tuple[int, str]] = {}
    computed = f"SELECT key, seq, data->>'$.output' FROM ({_SUCCEEDED}) WHERE data->>'$.cached' IS NULL ORDER BY seq"
    for key, seq, output in log.ask(computed):
        if key in before:
            first, result = before[key]
            is_excused = any(first < at < seq and result in blobs for at, blobs in erased)
            claim(is_excused, f"{key} was computed by event {first}, and again by event {seq}")
        before[key] = (seq, output)


def _check_texts(log: Log, texts: Mapping[str, str]) -> None:
    """Equal texts and no others have equal keys, each one was computed, and the poisoned one never."""
    succeeded = f"({_SUCCEEDED}) s JOIN ({_QUEUED}) q USING (task) WHERE q.step = 'write'"
    keys: dict[str, set[str]] = {}
    for key, row in log.ask(f"SELECT s.key, q.row FROM {succeeded}"):
        keys.setdefault(texts[row], set()).add(key)
    claim(all(len(of) == 1 for of in keys.values()), "equal texts have several keys")
    claim(len(set().union(*keys.values())) == len(keys), "a key stands for several texts")
    computed = {texts[row] for (row,) in log.ask(f"SELECT q.row FROM {succeeded} AND s.data->>'$.cached' IS NULL")}
    differing = computed ^ (set(texts.values()) - {POISON})
    claim(not differing, f"texts that were not computed, or should not have been: {sorted(differing)[:5]}")
    failed = log.ask(
        f"SELECT q.row, e.data->>'$.code' FROM events e JOIN ({_QUEUED}) q USING (task) WHERE e.type = 'task.failed'"
    )
    others = [(row, code) for row, code in failed if texts.get(row) != POISON or code != "crashed"]
    claim(not others, f"tasks that failed beside the poisoned one: {others[:5]}")
