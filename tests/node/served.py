"""A node for tests, in this process: a real log, a real bench with a tiny model, and the API on a real socket.

The node lives on an event loop in a thread of its own; tests speak to it as any client does, and may look inside.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import httpx
import msgspec
import uvicorn
from anyio.from_thread import BlockingPortal, start_blocking_portal

from gx.core.event import Event
from gx.core.projection import fold
from gx.core.view import RunState, StepState, View
from gx.node import problem, wire
from gx.node.address import listen, socket_path
from gx.node.api import Api
from gx.node.call import Client
from gx.node.client import Started, Submission
from gx.node.local import LocalNode
from gx.node.opening import open_node
from gx.node.serve import _Owned
from gx.node.workspace import Workspace
from gx.settings import Settings

HEAD = """\
version: 1
name: NAME
models: {m: ./tiny.gguf}
agents:
  a: {model: m, persona: You answer., sampling: {temperature: 1, max_tokens: TOKENS}}
steps:
"""
ROWS = HEAD + '  - {id: s, for_each: inputs, agent: a, prompt: "{{ item.text }}"}\n'
BY = "a tester"
BY_WORDS = Settings(threads=1, slots=2, memory_model="none")
"""Those of a node where nothing else is said: it embeds nothing, so no model is made."""
PATIENCE_S = 60.0
"""Only a test that fails takes as long; a busy machine may take a third of it."""

ENDLESS = 30_000
"""Tokens of an answer that takes longer than any test."""
HOLDS = f"  holds: {{model: m, sampling: {{max_tokens: {ENDLESS}}}}}\n"
HELD = (
    ROWS.replace("steps:\n", HOLDS + "steps:\n")
    + """\
  - {id: held, needs: [s], agent: holds, prompt: Go on.}
output: s
"""
)

T = TypeVar("T")


def recipe(name: str, *, tokens: int = 4) -> str:
    """Rows through one step. An endless answer is greedy: what is drawn might end at any token, once in some tests."""
    text = ROWS if tokens < ENDLESS else ROWS.replace("temperature: 1", "temperature: 0")
    return text.replace("NAME", name).replace("TOKENS", str(tokens))


def held(name: str, *, tokens: int = 4) -> str:
    """As `recipe`; when its rows are done the run stays live, until it is let go."""
    return HELD.replace("NAME", name).replace("TOKENS", str(tokens))


class Served:
    """A node that serves `folder`, and what a test asks it."""

    def __init__(self, folder: Path, portal: BlockingPortal, node: LocalNode, api: Api) -> None:
        self.folder, self.node, self.api = folder, node, api
        self._portal = portal
        self.client = Client(folder)
        transport = httpx.HTTPTransport(uds=str(socket_path(folder)))
        self.http = httpx.Client(transport=transport, base_url="http://gx", headers={"gx-by": BY}, timeout=180)

    def asked(self, text: str, rows: int = 3, **more: Any) -> wire.Asked:
        """A submission of that recipe over a file of so many rows."""
        place = self.folder.parent
        file = place / f"rows-{rows}.jsonl"
        if not file.exists():
            file.write_text("".join(json.dumps({"id": f"r{n}", "text": f"Say {n}."}) + "\n" for n in range(rows)))
        given = {"inputs": file.name, "recipe_file": "recipe.yaml", "by": "nobody"} | more
        submission = Submission(recipe_text=text, recipe_folder=str(place), folder=str(place), **given)
        return wire.Asked(submission=submission, settings=Settings(models_dir=place / "models"))

    def submit(self, text: str, rows: int = 3, **more: Any) -> Started:
        return self.client.ask("POST", "/v1/runs", self.asked(text, rows, **more), kind=Started, timeout_s=PATIENCE_S)

    def post(self, path: str, body: Any = None) -> httpx.Response:
        return self.http.post(path, json=body)

    def tell(self, run: str, verb: str, **body: Any) -> None:
        """Ask something of a run, which is done."""
        answer = self.post(f"/v1/runs/{run}/{verb}", body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["run"] == run

    def watch(self, run: str, *, results: bool = True) -> list[wire.Frame]:
        """All frames of a run, to its end."""
        lines = self.client.lines(f"/v1/runs/{run}/watch", results=str(results).lower())
        return [_frame(line) for line in lines]

    @contextmanager
    def watched(self, run: str) -> Iterator[Iterator[wire.Frame]]:
        """The frames of a run as they come; as long as the block lasts, a client is attached."""
        with self.http.stream("GET", f"/v1/runs/{run}/watch", timeout=PATIENCE_S) as answer:
            yield map(_frame, answer.iter_lines())

    def state(self, run: str) -> RunState:
        """The run as the log has it."""
        view = View()
        for event in self._read(run):
            fold(view, event)
        return view.runs[run]

    def bodies(self, run: str, kind: type[T]) -> list[T]:
        """The events of that kind that the run has in the log."""
        return [event.body for event in self._read(run) if isinstance(event.body, kind)]

    def _read(self, run: str) -> list[Event]:
        """The run's events in the log, once the node has folded them: an event is durable before it is known."""
        found = list(self.node.log.read(run=run))
        last = max((event.seq for event in found), default=-1)
        self.until(lambda: self.inside(lambda: self.node.view.seq) >= last)
        return found

    def folded(self) -> View:
        """The log, folded anew."""
        view = View()
        for event in self.node.log.read():
            fold(view, event)
        return view

    def differences(self) -> list[str]:
        """Where the node's view isn't the fold of its log: which of its runs, and how. It holds the node up."""

        def compare() -> list[str]:
            view, mine = self.folded(), self.node.view
            found = [f"seq {mine.seq}, epoch {mine.epoch}"] * ((mine.seq, mine.epoch) != (view.seq, view.epoch))
            if mine.benches != view.benches:
                found.append(f"{mine.benches} are no {view.benches}")
            for name, run in mine.runs.items():
                if (other := view.runs.get(name)) is None or _touched(run) != _touched(other):
                    found.append(f"{name}: {run} is no {other}")
            return found

        async def inside() -> list[str]:
            for _ in range(200):  # between two commits, when all that was written is folded
                if self.node.view.seq == self.node.log.last_seq and not (found := compare()):
                    return found
                await anyio.sleep(0.01)
            return compare()

        return self._portal.call(inside)

    def inside(self, look: Callable[[], T]) -> T:
        """What `look` gives on the node's own loop."""
        return self._portal.call(look)

    def in_loop(self, do: Callable[[], Awaitable[T]]) -> T:
        """Do something on the node's own loop, to its end."""
        return self._portal.call(do)

    def until(self, look: Callable[[], T]) -> T:
        """What `look` gives, once it is true."""
        ends = time.monotonic() + PATIENCE_S
        while not (found := look()):
            assert time.monotonic() < ends, "it never came to be"
            time.sleep(0.01)
        return found

    def let_go(self, run: str) -> None:
        """End what keeps a `held` run live, once its rows are done, so that it finishes."""
        self.until(lambda: any(task.step == "held" for task in self.state(run).tasks.values()))
        self.tell(run, "cancel", step="held")

    def end_runs(self) -> None:
        """Give up whatever is live."""
        for run in self.inside(self.node.runs.live):
            self.post(f"/v1/runs/{run}/cancel", {})
        self.until(lambda: not self.inside(self.node.runs.live))


def _touched(run: RunState) -> RunState:
    """The run without steps that were only looked at."""
    steps = {name: step for name, step in run.steps.items() if step != StepState(id=name)}
    return msgspec.structs.replace(run, steps=steps)


def _frame(line: str | bytes) -> wire.Frame:
    return problem.decode(line.encode() if isinstance(line, str) else line, wire.Frame)


def records(frames: list[wire.Frame]) -> list[dict[str, Any]]:
    """The records of these frames, as they are printed."""
    return [wire.record_of(result).as_dict() for frame in frames for result in frame.results]


@asynccontextmanager
async def _serving(folder: Path, settings: Settings) -> AsyncIterator[tuple[LocalNode, Api]]:
    """The node and its API, as `gx.node.serve` has them."""
    async with open_node(Workspace(folder), settings) as node:
        sock = listen(folder)
        api = Api(node, stays=True)
        config = uvicorn.Config(
            api.app, http=_Owned, ws="none", lifespan="off", log_config=None, access_log=False,
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = uvicorn.Server(config)
        async with anyio.create_task_group() as group:
            group.start_soon(server._serve, [sock])
            while not server.started:  # noqa: ASYNC110  it tells nobody
                await anyio.sleep(0.01)
            yield node, api
            server.should_exit = True


@contextmanager
def serve(folder: Path, settings: Settings | None = None) -> Iterator[Served]:
    """Serve the workspace in `folder` as long as the block lasts."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(_serving(folder, settings or BY_WORDS)) as (node, api),
    ):
        served = Served(folder, portal, node, api)
        try:
            yield served
        finally:
            served.http.close()


def ended(served: Served, run: str) -> wire.End:
    """How a run ended, when it has."""
    served.until(lambda: run not in served.inside(served.node.runs.live))
    return served.client.ask("GET", f"/v1/runs/{run}/end", kind=wire.End)
