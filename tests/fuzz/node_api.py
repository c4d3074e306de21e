"""Random requests to a node: no bug answers, nothing hangs, and whatever changes is an event.

Requests are drawn by schemathesis from the document that the node gives of itself, such as it allows and such as it
doesn't. Many are aimed at runs and tasks that there are, and many submissions are made good ones, so that the node has
something to lose. An answer must be one that the document lists, in its type, or a `Problem`; a server's error is
allowed where no bench can start. Every few requests the node's view is compared with a fold of its log. Requests follow
from the seed and their number, except for the names of runs.

`python -m tests.fuzz.node_api --requests 10000` prints what came out, and exits 1 if something was found.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from gx.core.errors import GxError
from gx.node import problem
from gx.run.log.verify import verify
from tests.node.served import Served, recipe, serve
from tests.tiny_model import write_tiny_model

ANSWER_S = 60.0
LISTEN_S = 0.1
EVERY = 25
"""Requests between two looks at the node's view."""
MOST_FOUND = 20
RARE = {"POST /v1/node/leave": 200, "GET /v1/log/verification": 10, "POST /v1/log/backup": 3}
"""One in so many is sent, since a node that left is started again; for the others it is asked how it stands."""
RULES = """\
rules:
  - {id: q, query: "SELECT $run IS NOT NULL", do: {ask: {text: 'More?', choices: [more, stop]}}}
  - {id: p, query: "SELECT count(*) > 1 FROM tasks WHERE run = $run AND ended IS NOT NULL", do: {pause: s}}
"""
RECIPES = (
    *(recipe(f"fuzz-{n}", tokens=3) for n in range(6)),
    *(recipe(f"fuzz-asks-{n}", tokens=400) + RULES for n in range(2)),
)
CHOICES = ("more", "stop", "maybe")
PLACES = ("copy", "copy/../other", "a\0b", "n" * 300, "ws", "ws/in", "tiny.gguf", "tiny.gguf/below", "é", "")
"""Where a backup is to be, below the folder that the fuzzing has for itself."""
SQL = (
    "SELECT * FROM events",
    "SELECT * FROM runs",
    "DELETE FROM events",
    "SELECT count(*) FROM range(1000000000) a, range(1000000000) b",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT 1; SELECT 2",
    "SELECT 'nan'::DOUBLE, [NULL], {'a': 1}, 'x'::BLOB",
    "SELECT * FROM tasks ORDER BY random()",
)


class Outcome(NamedTuple):
    """How often each operation was answered with each status, and what is wrong."""

    answered: Counter[str]
    found: list[str]


class Sent(NamedTuple):
    """A request as it went out."""

    method: str
    path: str
    query: dict[str, Any]
    content: bytes | None
    kind: str

    def __str__(self) -> str:
        body = "" if self.content is None else f" {self.kind} {self.content[:600]!r}"
        return f"{self.method} {self.path} {self.query or ''}{body}"


class Fuzzer:
    """A node that is asked one thing after the other."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.outcome = Outcome(Counter(), [])
        self._folder, self._tell = folder, tell
        self._count = 0
        self._differences: list[str] = []
        self._stack = ExitStack()
        self._start()
        self.schema = schemathesis.openapi.from_dict(self._document)

    def _start(self) -> None:
        self._served: Served = self._stack.enter_context(serve(self._folder / "ws"))
        self._document = self._served.client.ask("GET", "/v1/openapi.json")

    def close(self) -> None:
        """End the node, and look at its log once more."""
        self._look()
        self._served.end_runs()
        report = verify(self._served.node.log)
        if not report.is_whole:
            self._find(f"the log isn't whole: {report.problems}")
        self._stack.close()

    def ask(self, case: Any, draw: random.Random) -> None:
        """Send a request that was drawn, aimed at what there is, and look at its answer."""
        name = f"{case.method} {case.path}"
        if len(self.outcome.found) >= MOST_FOUND:
            return
        sent = self._aimed(case, draw)
        if draw.randrange(RARE.get(name, 1)):
            name, sent = "GET /v1/node", Sent("GET", "/v1/node", {}, None, "")
        self._count += 1
        try:
            answer, content = self._send(sent)
        except httpx.TimeoutException:
            self._find(f"no answer within {ANSWER_S:g} s: {sent}")
            return
        except httpx.HTTPError as error:
            self._find(f"{type(error).__name__} {error}: {sent}")
            return
        self.outcome.answered[f"{name} {answer.status_code}"] += 1
        if wrong := self._wrong(name, answer, content):
            self._find(f"{wrong}: {sent}")
        if name == "POST /v1/node/leave" and self._served.inside(lambda: self._served.api.is_leaving):
            self._again()
        elif self._count % EVERY == 0:
            self._look()
            self._tell(f"{self._count:,} requests, {len(self.outcome.found)} findings")

    # ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────

    def _aimed(self, case: Any, draw: random.Random) -> Sent:
        path, query, body = case.formatted_path, dict(case.query or {}), case.body
        content: bytes | None = None
        if "{" in case.path and draw.random() < 0.7:
            name = self._name(draw, case.path.rpartition("/")[2])
            path = case.path.format(**dict.fromkeys(("run", "subject", "token"), name))
        if query.get("follow") in (True, "true", "1"):  # where nothing comes, nothing is to be seen
            query = {"follow": "true", "after": draw.randint(-1, self._served.node.log.last_seq - 1)}
        if isinstance(body, dict):
            body = self._sensible(case.path, json.loads(json.dumps(body)), draw)
        if isinstance(body, bytes):
            content = body
        elif isinstance(body, str) and case.media_type == "application/octet-stream":
            content = body.encode("utf-8", "replace")
        elif case.media_type is not None and not isinstance(body, schemathesis.core.NotSet):
            content = json.dumps(body).encode()
        return Sent(case.method, path, query, content, case.media_type or "")

    def _name(self, draw: random.Random, verb: str) -> str:
        """A run or a task that there is, or the start of its name; most often one of which the verb can be asked."""

        def able() -> list[str]:
            runs = self._served.node.runs.items()
            asking, at_work = (
                [n for n, run in runs if run.state.questions],
                [n for n, run in runs if run.state.leased],
            )
            return {"answer": asking, "requeue": at_work}.get(verb) or [name for name, _ in runs]

        runs = list(self._served.inside(able))
        if not runs or draw.random() < 0.3:
            sql = "SELECT DISTINCT coalesce(task, run) FROM events WHERE run IS NOT NULL ORDER BY 1"
            runs = [str(row[0]) for row in self._served.node.log.file.ask(sql)]
        chosen = draw.choice(runs or ["none"])
        return chosen[: draw.randint(1, len(chosen))] if draw.random() < 0.1 else chosen

    def _sensible(self, path: str, body: dict[str, Any], draw: random.Random) -> dict[str, Any]:
        if path == "/v1/query":
            if draw.random() < 0.5:
                body |= {"sql": draw.choice(SQL)}
            return body | {"timeout_s": 0.2} if draw.random() < 0.9 or "range" in str(body) else body
        if path in ("/v1/runs/{run}/cancel", "/v1/runs/{run}/requeue") and draw.random() < 0.5:
            return body | {"step": "s"}
        if path == "/v1/runs/{run}/answer" and draw.random() < 0.8:
            return {"choice": draw.choice(CHOICES)}
        if path == "/v1/log/backup" and (draw.random() < 0.7 or str(body.get("path", "")).startswith("/")):
            if draw.random() < 0.7:
                shutil.rmtree(self._folder / "copy", ignore_errors=True)
            return body | {"path": f"{self._folder}/{draw.choice(PLACES)}"}  # nothing elsewhere is written to
        if path == "/v1/runs" and draw.random() < 0.8:
            asked = self._served.asked(draw.choice(RECIPES), rows=draw.randint(1, 9), is_detached=draw.random() < 0.8)
            whole = msgspec.to_builtins(asked, enc_hook=str)
            drawn = body.get("submission")
            if isinstance(drawn, dict):  # one thing of it is as it was drawn
                name = draw.choice([*drawn, None])
                whole["submission"] |= {} if name is None else {name: drawn[name]}
            return whole
        return body

    def _send(self, sent: Sent) -> tuple[httpx.Response, bytes]:
        if sent.path == "/v1/runs":
            self._send_input(sent)
        headers = {"content-type": sent.kind} if sent.kind else {}
        http, ends = self._served.http, time.monotonic() + (0 if "follow" in sent.query else LISTEN_S)
        asked = {"params": sent.query, "content": sent.content, "headers": headers, "timeout": ANSWER_S}
        with http.stream(sent.method, sent.path, **asked) as answer:
            got: list[bytes] = []
            for line in answer.iter_raw():
                got.append(line)
                if answer.headers.get("content-type") == "application/x-ndjson" and time.monotonic() > ends:
                    break
            return answer, b"".join(got)

    def _send_input(self, sent: Sent) -> None:
        """A run whose input is stdin is refused without one, after a while."""
        try:
            wanted = json.loads(sent.content or b"{}")["submission"]
            token = str(wanted.get("token", "")) if wanted["inputs"] == "-" else ""
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        if token:
            self._served.http.put(f"/v1/inputs/{token}", content=b'{"text": "x"}\n')

    # ── what comes back ──────────────────────────────────────────────────────────────────────────────────────────

    def _wrong(self, name: str, answer: httpx.Response, content: bytes) -> str:
        """What is wrong with an answer; empty if nothing is."""
        kind = answer.headers.get("content-type")
        if answer.status_code >= 400:
            try:
                error = problem.error_of(problem.decode(content, problem.Problem))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return f"{answer.status_code} is no problem but {content[:300]!r}"
            if answer.status_code >= 500 and answer.status_code != 503:
                return f"{answer.status_code} {error}"
            return "" if isinstance(error, GxError) and error.message else f"{answer.status_code} says nothing"
        method, path = name.split()
        told = self._document["paths"][path][method.lower()]["responses"].get(str(answer.status_code))
        if told is None:
            return f"{answer.status_code} isn't in the document"
        return "" if kind in told["content"] else f"{kind} isn't in the document"

    def _look(self) -> None:
        found = self._served.differences()
        if found and found != self._differences:
            self._find("not as the log has it: " + "; ".join(found)[:3000])
        self._differences = found

    def _find(self, what: str) -> None:
        self.outcome.found.append(f"request {self._count}: {what}")
        self._tell(self.outcome.found[-1])

    def _again(self) -> None:
        """The node that was told to leave does, and the next one goes on."""
        self._served.until(lambda: not self._served.inside(self._served.node.runs.live))
        self._look()
        self._stack.close()
        self._start()


def fuzz(folder: Path, *, requests: int, seed: int, tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Send so many requests to a node of its own in `folder`, where `tiny.gguf` may be."""
    if not (folder / "tiny.gguf").exists():
        write_tiny_model(folder / "tiny.gguf", context=512)
    fuzzer = Fuzzer(folder, tell)
    operations = [result.ok() for result in fuzzer.schema.get_all_operations()]
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    cases = st.one_of([one.as_strategy(generation_mode=mode) for one in operations for mode in modes])
    draw = random.Random(seed)

    def ask(case: Any) -> None:
        fuzzer.ask(case, draw)

    often = settings(
        max_examples=requests, database=None, phases=[Phase.generate], deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    try:
        seeded(seed)(often(given(cases)(ask)))()
    finally:
        fuzzer.close()
    return fuzzer.outcome


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.node_api", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    print(f"seed {asked.seed}: {asked.requests:,} requests", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="gx-fuzz-"))
    outcome = fuzz(folder, requests=asked.requests, seed=asked.seed, tell=_tell)
    for title, count in sorted(outcome.answered.items()):
        print(f"{count:6,} {title}")
    for text in outcome.found:
        print(f"\n{text}")
    if outcome.found:
        sys.exit(f"{len(outcome.found)} findings, the log is in {folder}; again with --seed {asked.seed}")
    shutil.rmtree(folder)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
