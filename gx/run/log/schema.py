"""The tables, triggers and views of the log's file, and how an event or a blob becomes rows.

It knows SQL and nothing of files, threads or transactions. Three invariants: the tables refuse UPDATE and DELETE; an
event's `hash` is SHA-256 of the hash before it and of the row's own text, so that no row can change unseen; and no row
is large, since DuckDB decompresses 2,048 rows to give one. The hot columns repeat what `data` says, for queries; they
are not in the chain, and `gx.run.log.verify` compares them. Views are the public SQL surface: a column may be added,
never renamed.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from typing import Any

from gx.core.event import AFTERWARDS, Blob, Body, tag_of

HOT = ("run", "task", "attempt", "worker", "ms", "tok_in", "tok_out", "key")
"""Fields of a body that stand in a column of their own; NULL where the body has no such field."""

EVENT_COLUMNS = ["seq", "id", "ts", "source", "type", *HOT, "data", "hash"]
CONTENT_COLUMNS = ["seq", "digest", "label", "size", "bytes"]
PART_COLUMNS = ["seq", "digest", "part", "bytes"]

GENESIS = bytes(32)
"""The hash before the first event."""
WHOLE_BYTES = 16 << 10
"""A larger blob stands in parts: 2,048 rows of this size take some 30 ms to decompress."""
PART_BYTES = 4096
"""Measured on 2,000 blobs of 100 KB: one is read in 15 ms, against 300 ms as whole rows; larger parts save nothing."""

TABLES = (
    """CREATE TABLE events(
        seq BIGINT PRIMARY KEY, id UUID NOT NULL, ts BIGINT NOT NULL, source VARCHAR NOT NULL, type VARCHAR NOT NULL,
        run VARCHAR, task VARCHAR, attempt INTEGER, worker VARCHAR, ms DOUBLE, tok_in INTEGER, tok_out INTEGER,
        key VARCHAR, data JSON NOT NULL, hash BLOB NOT NULL)""",
    # `bytes` is NULL where the content stands in `parts`; `size` is of the whole.
    """CREATE TABLE contents(
        seq BIGINT NOT NULL, digest VARCHAR NOT NULL, label VARCHAR NOT NULL, size BIGINT NOT NULL, bytes BLOB)""",
    # Of its own accord DuckDB takes a compression that takes three times as long to write, and more room.
    """CREATE TABLE parts(
        seq BIGINT NOT NULL, digest VARCHAR NOT NULL, part INTEGER NOT NULL, bytes BLOB NOT NULL USING COMPRESSION zstd)
    """,
    "CREATE TABLE refused(reason VARCHAR)",
)
COPIED = {"events": EVENT_COLUMNS, "contents": CONTENT_COLUMNS, "parts": PART_COLUMNS}
"""The tables that hold the log."""
TRIGGERS = tuple(
    f"""CREATE TRIGGER {table}_refuse_{change.lower()} AFTER {change} ON {table} FOR EACH STATEMENT
        INSERT INTO refused SELECT error('{table} is append-only')"""
    for table in COPIED
    for change in ("UPDATE", "DELETE")
)


def _amounts(kind: str, *names: str) -> str:
    """Columns of numbers, 0 where a body leaves them out."""
    return ", ".join(f"coalesce(CAST(data->>'$.{name}' AS {kind}), 0) AS {name}" for name in names)


VIEWS = {
    # One row a blob, whole; `seq` is that of the last event that was written with it.
    "blobs": """
        SELECT seq, digest, label, bytes, size FROM contents WHERE bytes IS NOT NULL
        UNION ALL
        SELECT c.seq, c.digest, c.label, p.bytes, c.size FROM contents c JOIN (
            SELECT seq, digest, unhex(string_agg(hex(bytes), '' ORDER BY part)) AS bytes FROM parts GROUP BY seq, digest
        ) p USING (seq, digest)
        WHERE c.bytes IS NULL""",
    # One row a task. A task that ended has the time, tokens and error of its end; `output` and `likelihoods` are
    # digests of blobs, `matrix` is JSON: matrix->>'agent' is the agent, where a step has several.
    "tasks": """
        SELECT run, data->>'$.step' AS step, CAST(data->>'$.index' AS BIGINT) AS index, data->>'$.id' AS id, task,
            data->>'$.path' AS path,
            CASE last WHEN 'task.queued' THEN 'queued' WHEN 'task.leased' THEN 'leased'
                WHEN 'task.succeeded' THEN 'succeeded' WHEN 'task.failed' THEN 'failed'
                WHEN 'task.cancelled' THEN 'cancelled' WHEN 'task.skipped' THEN 'skipped' ELSE 'prepared' END AS status,
            attempts, key, prepared->>'$.model' AS model, coalesce(prepared->>'$.label', data->>'$.label', 'shared')
            AS label, worker, make_timestamp(ts) AS queued, make_timestamp(ended) AS ended,
            done->>'$.output' AS output, coalesce(done->>'$.code', CASE last WHEN 'task.cancelled' THEN 'cancelled'
                WHEN 'task.skipped' THEN 'skipped' END) AS error_code,
            coalesce(done->>'$.message', done->>'$.reason') AS error_message,
            ms, tok_in, tok_out, done->>'$.cached' AS cached, done->>'$.likelihoods' AS likelihoods,
            data->'$.matrix' AS matrix
        FROM (SELECT task, any_value(run) AS run, arg_min(data, seq) FILTER (type = 'task.queued') AS data,
                min(ts) FILTER (type = 'task.queued') AS ts,
                arg_max(data, seq) FILTER (type = 'task.prepared') AS prepared,
                coalesce(arg_min(type, seq) FILTER (type IN ('task.succeeded', 'task.failed', 'task.cancelled',
                    'task.skipped')), arg_max(type, seq)) AS last,
                arg_min(data, seq) FILTER (type IN ('task.succeeded', 'task.failed', 'task.cancelled',
                    'task.skipped')) AS done,
                min(ts) FILTER (type IN ('task.succeeded', 'task.failed', 'task.cancelled', 'task.skipped')) AS ended,
                count(*) FILTER (type = 'task.leased') AS attempts, arg_max(key, seq) AS key,
                arg_max(worker, seq) AS worker, sum(ms) AS ms, coalesce(sum(tok_in), 0)::BIGINT AS tok_in,
                coalesce(sum(tok_out), 0)::BIGINT AS tok_out
            FROM events WHERE task IS NOT NULL AND type <> 'content.erased' GROUP BY task)
        WHERE data IS NOT NULL""",
    # One row an ended task, with its result as JSON text; `output` is NULL where it failed or was erased.
    "results": """
        SELECT t.run, t.step, t.index, t.id, t.task, t.status, b.output, t.error_code, t.error_message,
            t.tok_in, t.tok_out, t.ms, t.cached, t.attempts, t.matrix
        FROM tasks t LEFT JOIN (
            SELECT digest, any_value(decode(bytes)) AS output FROM (
                SELECT digest, bytes FROM contents WHERE bytes IS NOT NULL
                    AND digest IN (SELECT data->>'$.output' FROM events WHERE type = 'task.succeeded')
                UNION ALL
                SELECT digest, unhex(string_agg(hex(bytes), '' ORDER BY part)) FROM parts
                WHERE digest IN (SELECT data->>'$.output' FROM events WHERE type = 'task.succeeded')
                GROUP BY seq, digest)
            GROUP BY digest
        ) b ON b.digest = t.output
        WHERE t.status IN ('succeeded', 'failed', 'cancelled', 'skipped')""",
    # One row a lease; `outcome` is NULL while it runs. A twin that spoke late adds its tokens.
    "attempts": """
        SELECT l.run, l.task, l.attempt, l.worker, l.data->>'$.lease.type' AS lease,
            CASE e.type WHEN 'task.succeeded' THEN 'succeeded' WHEN 'attempt.failed' THEN 'failed'
                WHEN 'attempt.lost' THEN 'lost' WHEN 'task.cancelled' THEN 'cancelled'
                WHEN 'attempt.superseded' THEN 'superseded' WHEN 'task.failed' THEN 'failed' END AS outcome,
            make_timestamp(l.ts) AS started, make_timestamp(e.ts) AS ended, e.ms,
            coalesce(e.tok_in, 0)::BIGINT AS tok_in, coalesce(e.tok_out, 0)::BIGINT AS tok_out,
            e.data->>'$.code' AS error_code, coalesce(e.data->>'$.message', e.data->>'$.reason') AS error_message
        FROM (SELECT * FROM events WHERE type = 'task.leased') l
        LEFT JOIN (SELECT task, attempt, arg_min(type, seq) AS type, min(ts) AS ts, max(ms) AS ms,
                sum(tok_in) AS tok_in, sum(tok_out) AS tok_out, arg_min(data, seq) AS data
            FROM events WHERE type IN ('task.succeeded', 'attempt.failed', 'attempt.lost', 'attempt.superseded',
                'task.cancelled', 'task.failed') GROUP BY task, attempt) e
        USING (task, attempt)""",
    # One row a run. `tokens` is what was computed: results that came from the log cost nothing again.
    "runs": f"""
        SELECT c.run, c.data->>'$.name' AS name,
            CASE s.last WHEN 'run.finished' THEN 'finished' WHEN 'run.interrupted' THEN 'interrupted'
                WHEN 'run.stopped' THEN 'stopped' WHEN 'run.cancelled' THEN 'cancelled'
                WHEN 'run.paused' THEN 'paused' ELSE 'running' END AS status,
            make_timestamp(c.ts) AS started,
            CASE WHEN s.last IN ('run.finished', 'run.interrupted', 'run.stopped', 'run.cancelled')
                THEN make_timestamp(s.ts) END AS ended,
            a.tasks, a.succeeded, a.failed, a.tokens, (a.until - c.ts) / 1e6 AS seconds,
            c.data->>'$.file' AS file, c.data->>'$.fingerprint' AS fingerprint
        FROM (SELECT run, ts, data FROM events WHERE type = 'run.created') c
        JOIN (SELECT run, arg_max(type, seq) AS last, max(ts) AS ts FROM events
            WHERE type IN ('run.created', 'run.resumed', 'run.interrupted', 'run.stopped', 'run.finished',
                'run.cancelled', 'run.paused', 'run.continued')
            GROUP BY run) s USING (run)
        JOIN (SELECT run, count(*) FILTER (type = 'task.queued') AS tasks,
                count(*) FILTER (type = 'task.succeeded') AS succeeded,
                count(*) FILTER (type = 'task.failed') AS failed,
                coalesce(sum(coalesce(tok_in, 0) + coalesce(tok_out, 0)), 0)::BIGINT AS tokens, max(ts) AS until
            FROM events WHERE run IS NOT NULL AND type NOT IN {AFTERWARDS} GROUP BY run) a USING (run)""",
    # What each model computed for each step of each run. Dollars are a container's, so of a run: `gx spend` has them.
    "spend": """
        SELECT t.run, t.step, t.model, sum(coalesce(e.tok_in, 0))::BIGINT AS tok_in,
            sum(coalesce(e.tok_out, 0))::BIGINT AS tok_out,
            sum(coalesce(e.tok_in, 0) + coalesce(e.tok_out, 0))::BIGINT AS tokens,
            coalesce(sum(e.ms), 0) / 1e3 AS seconds
        FROM events e JOIN tasks t USING (task)
        WHERE e.type IN ('task.succeeded', 'attempt.failed', 'attempt.superseded')
        GROUP BY t.run, t.step, t.model""",
    # What the benches did while a run went on: the rows of a run add up, those of runs at the same time share a bench.
    # Paces follow from sums: sum(decode_tokens) / sum(decode_s). `slots_busy` and `threads` are as of `at`.
    "engine": f"""
        SELECT seq, make_timestamp(ts) AS at, run, worker, CAST(data->>'$.incarnation' AS INTEGER) AS incarnation,
            {_amounts("BIGINT", "requests", "prompt_tokens", "cached_tokens", "prefill_tokens", "prefill_calls")},
            {_amounts("DOUBLE", "prefill_s")}, {_amounts("BIGINT", "decode_tokens", "decode_calls")},
            {_amounts("DOUBLE", "decode_s", "busy_s", "queue_s")},
            {_amounts("INTEGER", "slots", "slots_busy", "threads")}
        FROM events WHERE type = 'bench.measured'""",
    # Where work was placed, and why: one row a change of verdict.
    "decisions": """
        SELECT seq, make_timestamp(ts) AS at, run, data->>'$.step' AS step, data->>'$.verdict' AS verdict,
            data->>'$.reason' AS reason, data
        FROM events WHERE type LIKE 'placement.%'""",
    # What left this machine: one row a departure, with the names of the fields that it was made from.
    "egress": """
        SELECT seq, make_timestamp(ts) AS at, run, task, worker, data->>'$.to' AS destination,
            CAST(data->>'$.bytes' AS BIGINT) AS bytes, data, attempt, data->'$.fields' AS fields,
            data->>'$.digest' AS digest
        FROM events WHERE type LIKE 'egress.%'""",
    # What was found in the memory for each task, the best first: `rank` counts from 1, as in the prompt's "m1".
    # Where a reranker ordered it, `relevance` is its score, and `fused_rank` the place before that, by `score`.
    "recalled": """
        SELECT p.run, p.task, p.rank, p.m.uid AS uid, p.m.score AS score, p.m.kind AS kind,
            coalesce(p.m.label, 'private') AS label, coalesce(p.m.path, '') AS path, coalesce(p.m.by, '') AS author,
            p.m.page AS page, p.m.body AS digest, p.seq, p.m.relevance AS relevance, p.m.fused_rank AS fused_rank
        FROM (SELECT run, task, seq, unnest(range(1, len(found) + 1)) AS rank, unnest(found) AS m FROM (
            SELECT run, task, seq, from_json(data->'$.found', '[{"uid": "VARCHAR", "score": "DOUBLE",
                "kind": "VARCHAR", "label": "VARCHAR", "path": "VARCHAR", "by": "VARCHAR", "page": "BIGINT",
                "body": "VARCHAR", "relevance": "DOUBLE", "fused_rank": "BIGINT"}]') AS found
            FROM events WHERE type = 'task.prepared' AND (data->'$.found') IS NOT NULL)) p""",
    # One row a memory that was not forgotten; `seq` is that of the event that first wrote it.
    "memories": """
        SELECT g.uid, g.m.namespace AS namespace, g.m.kind AS kind, b.body, coalesce(g.m.label, 'private') AS label,
            make_timestamp(CAST(g.m.at * 1e6 AS BIGINT)) AS at, coalesce(g.m.by, '') AS by,
            coalesce(g.m.path, '') AS path, g.m.ordinal AS ordinal, g.m.page AS page, coalesce(g.m.run, '') AS run,
            coalesce(g.m.task, '') AS task, g.seq, g.m.body AS digest
        FROM (SELECT w.m.uid AS uid, min(w.seq) AS seq, arg_max(w.m, w.seq) AS m
            FROM (SELECT seq, unnest(from_json(data->'$.memories', '[{"uid": "VARCHAR", "namespace": "VARCHAR",
                "kind": "VARCHAR", "body": "VARCHAR", "at": "DOUBLE", "label": "VARCHAR", "by": "VARCHAR",
                "path": "VARCHAR", "ordinal": "BIGINT", "page": "BIGINT", "run": "VARCHAR", "task": "VARCHAR"}]')) AS m
                FROM events WHERE type = 'memory.written') w
            LEFT JOIN (SELECT uid, max(seq) AS seq FROM (
                SELECT seq, unnest(from_json(data->'$.uids', '["VARCHAR"]')) AS uid
                FROM events WHERE type = 'memory.forgotten') GROUP BY uid) f ON f.uid = w.m.uid AND f.seq > w.seq
            WHERE f.uid IS NULL GROUP BY w.m.uid) g
        LEFT JOIN (
            SELECT digest, any_value(decode(bytes)) AS body FROM (
                SELECT digest, bytes FROM contents WHERE bytes IS NOT NULL AND digest IN (
                    SELECT unnest(data->>'$.memories[*].body') FROM events WHERE type = 'memory.written')
                UNION ALL
                SELECT digest, unhex(string_agg(hex(bytes), '' ORDER BY part)) FROM parts WHERE digest IN (
                    SELECT unnest(data->>'$.memories[*].body') FROM events WHERE type = 'memory.written')
                GROUP BY seq, digest)
            GROUP BY digest
        ) b ON b.digest = g.m.body""",
    # One row a run that stands in an archive only: `gx sql --archived` and `gx show` find it there.
    "archived": """
        SELECT run.*, a.data->>'$.name' AS archive
        FROM (SELECT data FROM events WHERE type = 'log.archived') a
        JOIN (SELECT digest, any_value(decode(bytes)) AS runs FROM blobs
            WHERE digest IN (SELECT data->>'$.runs' FROM events WHERE type = 'log.archived') GROUP BY digest) b
        ON b.digest = a.data->>'$.runs', unnest(from_json(b.runs, '[{"run": "VARCHAR", "name": "VARCHAR",
            "status": "VARCHAR", "started": "TIMESTAMP", "ended": "TIMESTAMP", "tasks": "BIGINT", "succeeded": "BIGINT",
            "failed": "BIGINT", "tokens": "BIGINT", "seconds": "DOUBLE"}]')) AS unnested(run)""",
}
VIEWS_MARK = hashlib.sha256(repr(VIEWS).encode()).hexdigest()[:16]
"""Stands in the comment of the last view: a file with another one gets its views again."""


def create_views() -> list[str]:
    """The statements that make or renew every view."""
    made = [f"CREATE OR REPLACE VIEW {name} AS {body}" for name, body in VIEWS.items()]
    return [*made, f"COMMENT ON VIEW {list(VIEWS)[-1]} IS '{VIEWS_MARK}'"]


def link(before: bytes, seq: int, id: uuid.UUID | str, ts: int, source: str, data: str) -> bytes:
    """The hash of a row: SHA-256 of `before` (32 bytes) and of seq, id, ts, source and data, a line each.

    No field but the last can hold a line break, and JSON holds none unescaped, so no two rows have the same text.
    """
    return hashlib.sha256(before + f"{seq}\n{id}\n{ts}\n{source}\n{data}".encode()).digest()


def row_of(before: bytes, seq: int, id: uuid.UUID, ts: int, source: str, body: Body, data: str) -> tuple[Any, ...]:
    """A row of `events` in the order of `EVENT_COLUMNS`; its last value is its hash."""
    return (seq, id, ts, source, *hot_of(body), data, link(before, seq, id, ts, source, data))


def hot_of(body: Body) -> tuple[Any, ...]:
    """The columns `type` and `HOT` of a body."""
    return (tag_of(body), *[getattr(body, name, None) for name in HOT])


def content_row(seq: int, blob: Blob) -> tuple[Any, ...]:
    """A row of `contents`, in the order of `CONTENT_COLUMNS`."""
    size = len(blob.content)
    return (seq, blob.digest, blob.label.value, size, blob.content if size <= WHOLE_BYTES else None)


def part_rows(seq: int, blob: Blob) -> Iterator[tuple[Any, ...]]:
    """The rows of `parts`, in the order of `PART_COLUMNS`: none for a blob that stands whole."""
    if len(blob.content) > WHOLE_BYTES:
        for part, start in enumerate(range(0, len(blob.content), PART_BYTES)):
            yield (seq, blob.digest, part, blob.content[start : start + PART_BYTES])
