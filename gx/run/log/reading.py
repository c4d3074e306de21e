"""What may be asked of a log: its events, its blobs, results of equal work, runs.

It reads and changes nothing. Every question gets a cursor of its own, and none holds a transaction open between pages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import msgspec

from gx.core.errors import LogError
from gx.core.event import Event, decode_body
from gx.run.log.file import LogFile
from gx.run.log.keys import KnownKeys

JOINED_BYTES = 32 << 20
"""The most bytes of large blobs that one question is about, unless it is about one."""
FEW_QUESTIONS = 16
"""Batches of keys after which it pays to learn which keys there are: it takes as long as ten questions."""


class LogReader:
    """Questions to one open file, from any thread."""

    def __init__(self, file: LogFile) -> None:
        self.file = file
        self._had_results: dict[int, bool] = {}
        self._questions = 0
        self._keys = KnownKeys(file)

    @property
    def last_seq(self) -> int:
        """The `seq` of the last durable event."""
        return self.file.newest.seq

    def read(self, *, run: str | None = None, after: int = -1, batch: int = 10_000) -> Iterator[Event]:
        """Events with `seq` > `after`, in order, as far as the log went when the reading began.

        Of one run, or of no run at all (the node's own) with `run=""`.

        Pages are ranges of `seq`, so no transaction stays open between them. :raises LogError: `log.damaged`.
        """
        start, end = max(after + 1, 0), self.file.newest.seq
        where = "seq BETWEEN ? AND ?"
        values: list[str] = []
        if run is not None:
            only, values = ("run = ?", [run]) if run else ("run IS NULL", [])
            where = f"{where} AND {only}"
            ((low, high),) = self.file.ask(f"SELECT min(seq), max(seq) FROM events WHERE {only}", values)
            start, end = (end + 1, end) if low is None else (max(start, low), min(high, end))
        sql = f"SELECT seq, ts, source, data FROM events WHERE {where} ORDER BY seq"
        for first in range(start, end + 1, batch):
            for seq, ts, source, data in self.file.ask(sql, [first, min(end, first + batch - 1), *values]):
                try:
                    body = decode_body(data)
                except msgspec.DecodeError as error:
                    raise LogError(f"event {seq} can't be read: {error}", code="log.damaged") from error
                yield Event(seq=seq, ts=ts, source=source, body=body)

    def blobs(self, digests: Collection[str]) -> dict[str, bytes]:
        """The content of those digests; what was erased, or never there, is absent.

        :raises LogError: `log.damaged` if parts of one are missing.
        """
        if not digests:
            return {}
        named = "SELECT rowid FROM contents WHERE digest IN (SELECT unnest(?::VARCHAR[]))"  # reads no bytes but these
        sql = f"SELECT digest, bytes, seq, size FROM contents WHERE rowid IN ({named})"
        found: dict[str, bytes] = {}
        large: dict[str, tuple[int, int]] = {}
        for digest, content, seq, size in self.file.ask(sql, [list(digests)]):
            if content is None:
                large[digest] = (seq, size)
            else:
                found[digest] = content
        for asked in large_blobs_in_turn([(seq, digest, size) for digest, (seq, size) in large.items()]):
            for (_, digest), content in self.join_parts(asked).items():
                if len(content) != large[digest][1]:
                    raise LogError(
                        f"parts of the content {digest} are missing", hint="`gx log --verify`", code="log.damaged"
                    )
                found[digest] = content
        return found

    def sizes(self, digests: Collection[str]) -> dict[str, int]:
        """The bytes of each of those contents that is there."""
        sql = "SELECT digest, any_value(size) FROM contents WHERE digest = any(?::VARCHAR[]) GROUP BY digest"
        return dict(self.file.ask(sql, [list(digests)]))

    def join_parts(self, asked: Collection[tuple[int, str]]) -> dict[tuple[int, str], bytes]:
        """What there is of the large blobs with those (seq, digest), as far as their parts go on without a gap."""
        seqs = [seq for seq, _ in asked]
        near = "digest IN (SELECT unnest(?::VARCHAR[])) AND seq BETWEEN ? AND ?"  # passes most of the rows by
        rows = self.file.ask(
            f"SELECT seq, digest, part, bytes FROM parts WHERE rowid IN (SELECT rowid FROM parts WHERE {near})"
            " ORDER BY seq, digest, part",
            [[digest for _, digest in asked], min(seqs), max(seqs)],
        )
        parts: dict[tuple[int, str], list[bytes]] = {name: [] for name in asked}
        for seq, digest, part, content in rows:
            if (known := parts.get((seq, digest))) is not None and len(known) == part:
                known.append(content)
        return {name: b"".join(known) for name, known in parts.items()}

    def find_results(self, keys: Collection[str], *, before_seq: int) -> dict[str, _Found]:
        """For each key with a result at `seq` <= `before_seq`: the newest task that has it, its output, its finish and
        its likelihoods.

        A result of which something was erased is not found, nor one that was cut where the context ended.
        """
        if not keys or not self._has_results(before_seq) or not (keys := self._likely(keys, before_seq)):
            return {}
        rows = self.file.ask(
            "SELECT key, task, data FROM events WHERE type = 'task.succeeded' AND key = any(?::VARCHAR[]) AND seq <= ?"
            " ORDER BY seq",
            [list(keys), before_seq],
        )
        results = [(key, task, msgspec.json.decode(data, type=_Result)) for key, task, data in rows]
        refs = {ref for _, _, result in results for ref in (result.output, result.likelihoods) if ref is not None}
        rows = self.file.ask("SELECT digest FROM contents WHERE digest = any(?::VARCHAR[])", [list(refs)])
        kept = {None, *(ref for (ref,) in rows)}
        return {
            key: (task, result.output, result.finish, result.likelihoods)
            for key, task, result in results
            if result.output in kept and result.likelihoods in kept and result.finish != "context"
        }

    def _has_results(self, before_seq: int) -> bool:
        """Whether any task had succeeded by then. A run asks that for every batch, so the answer is kept."""
        if before_seq not in self._had_results:
            sql = "SELECT 1 FROM events WHERE type = 'task.succeeded' AND seq <= ? LIMIT 1"
            self._had_results[before_seq] = bool(self.file.ask(sql, [before_seq]))
        return self._had_results[before_seq]

    def _likely(self, keys: Collection[str], before_seq: int) -> Collection[str]:
        """The keys without those that have no result; who asks seldom needs no such help."""
        self._questions += 1
        if self._questions <= FEW_QUESTIONS:
            return keys
        self._keys.learn(before_seq)
        return self._keys.among(keys)

    def newest_run(self, fingerprint: str) -> str | None:
        """The newest run of that fingerprint that neither finished nor was given up, and nothing of it erased."""
        rows = self.file.ask(
            """SELECT run FROM events
            WHERE run IN (SELECT run FROM events WHERE type = 'run.created' AND data->>'$.fingerprint' = ?)
                AND type IN ('run.created', 'run.finished', 'run.cancelled', 'content.erased')
                AND run NOT IN (
                    SELECT unnest(from_json(data->'$.also', '["VARCHAR"]')) FROM events WHERE type = 'content.erased'
                )
            GROUP BY run HAVING count(*) FILTER (type <> 'run.created') = 0 ORDER BY min(seq) DESC LIMIT 1""",
            [fingerprint],
        )
        return rows[0][0] if rows else None

    def live_runs(self) -> list[tuple[str, str | None, bool]]:
        """The runs that somebody wanted and that did not end: each with the blob of what was asked for, and whether it
        goes on without a client. Those that a node which died left behind.
        """
        rows = self.file.ask(
            """SELECT run, any_value(data->>'$.asked') FILTER (type = 'run.created'),
                coalesce(bool_or((data->>'$.is_detached') = 'true'), false)
            FROM events WHERE type IN ('run.created', 'run.resumed', 'run.changed', 'run.interrupted', 'run.stopped',
                'run.finished', 'run.cancelled') GROUP BY run
            HAVING arg_max(type, seq) FILTER (type <> 'run.changed') IN ('run.created', 'run.resumed')
            ORDER BY min(seq)"""
        )
        return [(run, asked, bool(is_detached)) for run, asked, is_detached in rows]

    def asked_of(self, run: str) -> str | None:
        """The blob of what was asked for when the run began."""
        sql = "SELECT data->>'$.asked' FROM events WHERE type = 'run.created' AND run = ?"
        rows = self.file.ask(sql, [run])
        return rows[0][0] if rows else None

    def is_unfinished(self, run: str) -> bool:
        """Whether there is such a run, and it neither finished nor was given up."""
        return self.has_run(run) and not self.file.ask(
            "SELECT 1 FROM events WHERE type IN ('run.finished', 'run.cancelled') AND run = ? LIMIT 1", [run]
        )

    def has_run(self, run: str) -> bool:
        """Whether a run with that id was ever created."""
        return bool(self.file.ask("SELECT 1 FROM events WHERE type = 'run.created' AND run = ? LIMIT 1", [run]))


def large_blobs_in_turn(blobs: Iterable[tuple[int, str, int]]) -> Iterator[list[tuple[int, str]]]:
    """The (seq, digest) of (seq, digest, size), in groups of at most `JOINED_BYTES` or of one."""
    group: list[tuple[int, str]] = []
    total = 0
    for seq, digest, size in sorted(blobs):
        if group and total + size > JOINED_BYTES:
            yield group
            group, total = [], 0
        group.append((seq, digest))
        total += size
    if group:
        yield group


_Found = tuple[str, str, str, str | None]


class _Result(msgspec.Struct):
    output: str
    finish: str = "stop"
    likelihoods: str | None = None
