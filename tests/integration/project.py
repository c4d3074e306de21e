"""A folder in which the real `gx` command is run, as from a shell: started, fed, read line by line, killed, resumed.

The node that the first command starts is the folder's own, and lingers for a moment only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gx.core.errors import NotFound, WorkspaceError
from gx.node import reader
from gx.node.call import Client, NodeGone
from gx.node.start import send_home
from gx.node.status import NodeStatus, RunStatusNow
from gx.node.workspace import Workspace
from gx.run.log.verify import verify
from tests import nodes

GX = (sys.executable, "-P", "-m", "gx.cli.main")
RECIPE = """\
version: 1
name: test
models: {m: ./model.gguf}
agents:
  a: {model: m, persona: You answer., sampling: {temperature: 1, max_tokens: 6}}
steps:
  - {id: s, for_each: inputs, agent: a, prompt: "{{ item.text }}"}
"""
SLOW = RECIPE.replace("max_tokens: 6", "max_tokens: 150")
ENDLESS = RECIPE.replace("temperature: 1, max_tokens: 6", "temperature: 0, max_tokens: 30000")
"""Greedy: what is drawn might end at any token, once in some tests."""
HELD = (
    RECIPE.replace("steps:\n", "  holds: {model: m, sampling: {max_tokens: 30000}}\nsteps:\n")
    + """\
  - {id: held, needs: [s], agent: holds, prompt: Go on.}
output: s
"""
)
"""A run of it stays live when its rows are done, until it is let go: `Project.let_go`."""
LETS_GO_S = 60.0
"""How long a node may take to end what it is about, linger and let the workspace go."""


class Done:
    """A command that ended: its status, its records, its notes."""

    def __init__(self, status: int, out: bytes, err: bytes) -> None:
        self.status, self.err = status, err.decode("utf-8", "replace")
        self.records: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
        assert "Traceback" not in self.err, self.err
        assert "Fatal Python error" not in self.err, self.err

    @property
    def ids(self) -> list[str]:
        return sorted(record["id"] for record in self.records)


class Running:
    """A command that was started; its stdout is read line by line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._out = b""

    def record(self) -> dict[str, Any]:
        """The next record, once it is there."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self._out += line
        found: dict[str, Any] = json.loads(line)
        return found

    def feed(self, *rows: dict[str, str]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        self.process.stdin.flush()

    def end(self, timeout_s: float = 180) -> Done:
        out, err = self.process.communicate(timeout=timeout_s)
        return Done(self.process.returncode, self._out + out, err)


class Project:
    """A folder with a recipe, rows and a workspace of its own, where gx is run as from a shell."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, folder / "ws"
        homes = {name: str(folder / "home") for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
        self.env = os.environ | homes | {"GX_WORKSPACE": str(self.workspace), "GX_THREADS": "1"}
        self.env["GX_SLOTS"] = "2"  # so that rows end one after the other, and there is time to interrupt
        self.env["GX_NODE_LINGER_S"] = str(nodes.LINGER_S)
        self._started: list[subprocess.Popen[bytes]] = []

    def keep(self) -> Project:
        """From now on nodes wait for the next command."""
        self.env["GX_NODE_LINGER_S"] = str(nodes.LINGERS_S)
        return self

    def write(self, recipe: str, model: Path, rows: int = 20) -> Project:
        (self.folder / "recipe.yaml").write_text(recipe)
        (self.folder / "model.gguf").symlink_to(model)
        self.add(*texts(rows))
        return self

    def add(self, *rows: dict[str, str]) -> None:
        with (self.folder / "rows.jsonl").open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))

    def start(self, *args: str, preexec: Callable[[], object] | None = None, **env: str) -> Running:
        command = [*GX, *(args or ("run", "recipe.yaml", "-i", "rows.jsonl"))]
        process = subprocess.Popen(
            command,
            bufsize=0,  # `communicate` would not see what `readline` had read ahead
            cwd=self.folder,
            env=self.env | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=preexec,
        )
        self._started.append(process)
        return Running(process)

    def run(self, *args: str, stdin: bytes = b"", **env: str) -> Done:
        running = self.start(*args, **env)
        out, err = running.process.communicate(stdin, timeout=180)
        return Done(running.process.returncode, out, err)

    def resume(self, told: str) -> Done:
        """Type the command that gx printed."""
        (line,) = [line for line in told.splitlines() if "go on with: " in line]
        words = shlex.split(line.partition("go on with: ")[2])
        return self.run(*words[words.index("gx") + 1 :])

    @property
    def node(self) -> int | None:
        """The process that owns the workspace now."""
        return nodes.node_of(self.workspace)

    def kill_node(self) -> int:
        """Kill -9 the node, which is up or comes up."""
        pid = nodes.until(lambda: self.node)
        assert pid is not None, "no node is up"
        nodes.kill(pid)
        return pid

    def rest(self) -> None:
        """Send the node home as soon as it is idle, and with it all that has the workspace's files open."""

        def has_left() -> bool:
            with contextlib.suppress(WorkspaceError):  # a run is live
                send_home(self.workspace)
            return not nodes.nodes_of(self.workspace)

        assert nodes.until(has_left), "the node stays"

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """What the log says, once the node has let it go: of a run that is over, that is soon."""
        self.rest()
        with Workspace(self.workspace).shared(wait_s=LETS_GO_S) as log:
            return log.file.ask(sql)

    def ask_live(self, sql: str) -> list[dict[str, Any]]:
        """What `gx sql` says, while a run may be live, and nodes may come and go."""
        (rows,) = nodes.until(lambda: self._answers(sql)) or ("nobody answers",)
        assert not isinstance(rows, str), rows
        return rows

    def _answers(self, sql: str) -> tuple[list[dict[str, Any]]] | None:
        try:
            table = reader.ask(Workspace(self.workspace), lambda log: log.table(sql, timeout_s=60.0, max_rows=None))
        except (WorkspaceError, NotFound):  # a node is coming, or going
            return None
        return (table.rows,)

    def live(self) -> dict[str, RunStatusNow]:
        """The live runs, as `gx ps` has them; none where no node is up."""
        try:
            status: NodeStatus = Client(self.workspace).ask("GET", "/v1/node", kind=NodeStatus)
        except NodeGone:
            return {}
        return {run.run: run for run in status.runs}

    @property
    def states(self) -> list[str]:
        """How the live runs stand."""
        return [run.status for run in self.live().values()]

    @property
    def is_running(self) -> bool:
        """Whether the bench has something to do."""
        return any(run.progress.running for run in self.live().values())

    def let_go(self, runs: int = 1) -> None:
        """End what keeps so many runs of `HELD` live, once their rows are done: they finish."""
        live = nodes.until(lambda: found if len(found := self.live()) == runs else {})
        assert live, self.live()
        for run in live:
            assert nodes.until(lambda: self._cancels(run, "held")), f"{run} does not come to its end"  # noqa: B023

    def _cancels(self, run: str, step: str) -> bool:
        try:
            Client(self.workspace).ask("POST", f"/v1/runs/{run}/cancel", {"step": step})
        except (NodeGone, NotFound):  # it hasn't come to that step
            return False
        return True

    def assert_nothing_was_computed_twice(self) -> None:
        """No key and no task was answered by the model more than once, and the log is whole."""
        succeeded = "FROM events WHERE type = 'task.succeeded' AND data->>'$.cached' IS NULL"
        assert not self.ask(f"SELECT key {succeeded} GROUP BY key HAVING count(*) > 1")
        assert not self.ask(f"SELECT task {succeeded} GROUP BY task HAVING count(*) > 1")
        with Workspace(self.workspace).shared(wait_s=LETS_GO_S) as log:
            assert verify(log).is_whole

    def close(self) -> None:
        """End whatever was started here and is still up."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        nodes.end_nodes(self.workspace)


def texts(count: int) -> list[dict[str, str]]:
    return [{"id": f"row-{n:02}", "text": f"Say {n}."} for n in range(count)]
