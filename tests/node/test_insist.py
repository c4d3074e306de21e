"""What is asked of a node that leaves or dies is asked of the next one, with the same token."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from gx import __version__
from gx.cli import running, steer
from gx.core.errors import GxError, NotFound, WorkspaceError
from gx.node import problem, wire
from gx.node.address import listen
from gx.node.call import Client, NodeGone
from gx.node.client import Started, Submission
from gx.node.endpoints import Done
from gx.node.start import MOST_DEATHS, insist
from gx.node.workspace import Workspace
from gx.settings import Settings

STARTED = Started(run="told-222222", name="told", model="m", is_resumed=False, done_before=0, total=3)
LEAVES = WorkspaceError("the node is leaving", code="workspace.leaving")
DIES = NodeGone("as a test wants it")
REFUSES = NotFound("there is no such thing")

Said = Started | Done | GxError


class Stub(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Stands for one node after the other: `says` are the answers to what is asked; submissions are kept in `asked`.

    One that leaves is gone when it was looked at three times.
    """

    daemon_threads = True

    def __init__(self, folder: Path, says: list[Said]) -> None:
        super().__init__("", _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listen(folder)
        self.says, self.asked, self.looks = says, list[wire.Asked](), 0


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        self.server.looks += 1
        self._answer(200, {"gx": __version__, "runs": [], "is_leaving": self.server.looks % 3 != 0})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        if content:
            self.server.asked.append(problem.decode(content, wire.Asked))
        said = self.server.says.pop(0)
        if isinstance(said, NodeGone):
            self.close_connection = True
        elif isinstance(said, GxError):
            self._answer(409, problem.problem_of(said))
        else:
            self._answer(200, said)

    def _answer(self, status: int, value: Any) -> None:
        body = problem.encode(value)
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


Start = Callable[..., Stub]


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Start]:
    started = list[Stub]()

    def start(*says: Said) -> Stub:
        Workspace(tmp_path).make()
        made = Stub(tmp_path, list(says))
        started.append(made)
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        return made

    yield start
    for one in started:
        one.shutdown()
        one.server_close()


WANTED = Submission(recipe_text="", recipe_file="r.yaml", recipe_folder="/", folder="/", token="aa" * 6)


def submit(client: Client) -> Started:
    started: Started = client.ask("POST", "/v1/runs", wire.Asked(submission=WANTED, settings=Settings()), kind=Started)
    return started


def tokens(stub: Stub) -> list[str]:
    return [asked.submission.token for asked in stub.asked]


def test_a_node_that_leaves_is_waited_for_which_is_noted_once(tmp_path: Path, stub: Start) -> None:
    there, notes = stub(LEAVES, LEAVES, STARTED), list[str]()
    assert insist(tmp_path, submit, on_note=notes.append) == STARTED
    assert notes == ["note: the node is leaving; the next one is asked when it is gone"]
    assert tokens(there) == [WANTED.token] * 3 and there.looks >= 2 * 3


def test_a_node_that_dies_is_followed_by_another_one(tmp_path: Path, stub: Start) -> None:
    there, notes = stub(DIES, DIES, STARTED), list[str]()
    assert insist(tmp_path, submit, on_note=notes.append) == STARTED
    assert (tokens(there), notes) == ([WANTED.token] * 3, [])


def test_nodes_that_die_one_after_the_other_end_in_a_message(tmp_path: Path, stub: Start) -> None:
    stub(*[DIES] * MOST_DEATHS)
    with pytest.raises(WorkspaceError, match="5 nodes died one after the other; the last time: Remote end closed"):
        insist(tmp_path, submit, on_note=print)


def test_what_a_node_refuses_is_not_asked_again(tmp_path: Path, stub: Start) -> None:
    there = stub(REFUSES)
    with pytest.raises(NotFound, match="no such thing"):
        insist(tmp_path, submit, on_note=print)
    assert len(there.asked) == 1


def test_a_detached_run_is_asked_for_until_it_is_taken_and_is_one_run(tmp_path: Path, stub: Start) -> None:
    there = stub(DIES, LEAVES, STARTED)
    assert running.detach(WANTED, Settings(), Workspace(tmp_path)) == STARTED.run
    assert len(there.asked) == 3 and len(set(tokens(there))) == 1


def test_a_run_is_resumed_by_the_next_node_where_one_leaves(
    tmp_path: Path, stub: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    stub(LEAVES, DIES, Done(run=STARTED.run))
    (tmp_path / "log.duckdb").touch()  # there may be runs
    steer.resume("told", workspace=tmp_path)
    assert capsys.readouterr().err.splitlines() == [
        "note: the node is leaving; the next one is asked when it is gone",
        f"{STARTED.run} goes on; `gx wait {STARTED.run}` waits for it",
    ]


def test_a_node_that_dies_under_any_other_question_ends_it_with_a_message(tmp_path: Path, stub: Start) -> None:
    stub(DIES)
    with pytest.raises(GxError, match="the node went away: Remote end closed") as gone:
        submit(Client(tmp_path))
    assert (gone.value.code, bool(gone.value.hint)) == ("workspace.gone", True)
