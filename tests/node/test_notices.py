"""Notices of a run: the node tells a command or an address, writes it down before that, and no run waits for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from gx.core import event as e
from gx.core.errors import UsageError
from gx.core.ids import digest
from gx.core.projection import fold
from gx.core.terms import Terms
from gx.core.view import RunState, View
from gx.node.notices import check_targets, destination, due, told_again, without_secrets
from gx.node.notify import environment
from tests.node.served import ENDLESS, Served, ended, recipe

SECRET = "/services/T0/B0/s3cret?token=hunter2"


class Hook:
    """An address that keeps what is posted to it, and answers with `status`."""

    def __init__(self, url: str, status: int) -> None:
        self.url, self.status = url, status
        self.bodies: list[bytes] = []


@contextmanager
def hook(status: int = 200) -> Iterator[Hook]:
    class Keeps(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(made.status)
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Keeps) as server:
        made = Hook(f"http://127.0.0.1:{server.server_port}", status)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


def told(served: Served, run: str) -> list[e.NoticeEnded]:
    """How the notices of a run that is over ended, once one did."""
    return served.until(lambda: served.bodies(run, e.NoticeEnded))


def test_a_command_gets_the_end_of_a_detached_run_on_its_stdin(served: Served) -> None:
    place = served.folder.parent
    command = 'cat > notice.json; echo "$GX_EVENT $GX_RUN $GX_EXIT_CODE $GX_SUCCEEDED" > told.txt'
    run = served.submit(recipe("told"), is_detached=True, notify=(command,)).run
    ended(served, run)
    (one,) = told(served, run)
    assert (one.about, one.to, one.error) == ("ended", "command", "")
    notice = json.loads((place / "notice.json").read_text())
    assert (notice["event"], notice["run"], notice["status"], notice["exit_code"]) == ("ended", run, "finished", 0)
    assert notice["tasks"]["succeeded"] == 3
    assert (place / "told.txt").read_text() == f"ended {run} 0 3\n"


def test_what_is_posted_is_an_event_before_it_leaves_and_has_no_content(served: Served) -> None:
    with hook() as there:
        run = served.submit(recipe("posted"), is_detached=True, notify=(there.url + SECRET,)).run
        ended(served, run)
        (one,) = told(served, run)
    assert (one.to, one.error) == (there.url, "")
    (leaves,) = served.bodies(run, e.NoticeLeaves)
    (body,) = there.bodies
    assert (leaves.to, leaves.bytes, leaves.digest) == (there.url, len(body), digest(body))
    assert set(leaves.fields) == set(json.loads(body))
    assert b"Say" not in body and b"text" not in body
    rows = served.client.ask("POST", "/v1/query", {"sql": f"SELECT destination, bytes FROM egress WHERE run = '{run}'"})
    assert rows["rows"] == [{"destination": there.url, "bytes": len(body)}]


def test_an_address_is_a_secret_and_is_not_written_down(served: Served) -> None:
    with hook() as there:
        run = served.submit(recipe("secret"), is_detached=True, notify=(there.url + SECRET, "true")).run
        ended(served, run)
        served.until(lambda: len(served.bodies(run, e.NoticeEnded)) == 2)
    asked = served.client.ask("GET", f"/v1/runs/{run}/asked")
    assert asked["submission"]["notify"] == ["true"]
    for file in served.folder.iterdir():
        assert not file.is_file() or b"s3cret" not in file.read_bytes(), file


@pytest.mark.parametrize("target", ["exit 3", "no-such-command-of-anybody"])
def test_a_command_that_fails_is_told_and_fails_no_run(served: Served, target: str) -> None:
    run = served.submit(recipe("fails" + target[:2].strip()), is_detached=True, notify=(target,)).run
    assert ended(served, run).run.failed == 0
    (one,) = told(served, run)
    assert "it ended with status" in one.error


def test_an_address_that_refuses_is_told_and_fails_no_run(served: Served) -> None:
    with hook(404) as there:
        run = served.submit(recipe("refuses"), is_detached=True, notify=(there.url,)).run
        assert ended(served, run).run.failed == 0
        (one,) = told(served, run)
    assert one.error == "answered with status 404"
    assert len(there.bodies) == len(served.bodies(run, e.NoticeLeaves)) == 1  # to try again would not help


def test_a_question_to_a_person_is_told_once_and_its_text_is_not(served: Served) -> None:
    query = "select count(*) > 0 from tasks where run = $run"
    rule = f'rules:\n  - {{id: unsure, query: "{query}", do: {{ask: {{text: Really so, choices: [go, stop]}}}}}}\n'
    place = served.folder.parent
    text = recipe("asks", tokens=ENDLESS) + rule
    run = served.submit(text, is_detached=True, notify=("cat >> asked.jsonl; echo >> asked.jsonl",)).run
    (one, *_) = told(served, run)
    assert one.about == "person"
    notice = json.loads((place / "asked.jsonl").read_text().splitlines()[0])
    assert (notice["event"], notice["question"], notice["exit_code"]) == ("person", "unsure-1", None)
    assert "Really" not in json.dumps(notice)


def test_a_cap_that_is_reached_is_told_once_for_each_cap_and_another_one_anew() -> None:
    run = RunState(id="r", created=e.RunCreated(run="r", name="", fingerprint="", recipe="", params=""))
    assert due(run, set()) == []
    view, told_so_far = View(runs={"r": run}), set[str]()
    for seq, usd in enumerate((0.5, 2.0)):
        terms = e.BurstAllowed(run="r", terms=Terms(usd=usd))
        fold(view, e.Event(seq=2 * seq, ts=0, source="t", body=terms))
        assert due(run, told_so_far) == [], "there is room on these terms"
        reached = e.CapReached(run="r", usd=usd - 0.1, cap_usd=usd, reserve_usd=0.2)
        fold(view, e.Event(seq=2 * seq + 1, ts=0, source="t", body=reached))
        (one,) = due(run, told_so_far)
        assert (one.about, one.question) == ("cap", "")
        told_so_far.add(one.key)
        assert due(run, told_so_far) == []


def test_a_run_at_its_cap_tells_a_command_and_an_address_what_it_spent(served: Served) -> None:
    place = served.folder.parent
    with hook() as there:
        targets = ('cat > cap.json; echo "$GX_EVENT $GX_STATUS" > cap.txt', there.url + SECRET)
        run = served.submit(recipe("capped", tokens=ENDLESS), is_detached=True, notify=targets).run
        reached = e.CapReached(run=run, usd=0.4, cap_usd=0.5, reserve_usd=0.2)
        bodies: list[e.Body] = [e.BurstAllowed(run=run, terms=Terms(mode="off", usd=0.5)), reached]
        served.in_loop(lambda: served.node._dispatcher.commit(bodies))
        ends = served.until(lambda: (found := served.bodies(run, e.NoticeEnded))[1:] and found)
        assert {(one.about, one.to, one.error) for one in ends} == {("cap", "command", ""), ("cap", there.url, "")}
        (body,) = there.bodies
        notice = json.loads(body)
        assert json.loads((place / "cap.json").read_text()) == notice
        assert (notice["event"], notice["status"], notice["exit_code"]) == ("cap", "running", None)
        assert (place / "cap.txt").read_text() == "cap running\n"
    served.tell(run, "cancel", reason="enough")
    ended(served, run)


def test_who_joins_a_run_is_told_too(served: Served) -> None:
    text = recipe("joined", tokens=ENDLESS)
    place = served.folder.parent
    run = served.submit(text, is_detached=True, notify=("echo $GX_STATUS > first",)).run
    assert served.submit(text, notify=("echo $GX_STATUS > second", "echo $GX_STATUS > first")).run == run
    served.tell(run, "cancel", reason="enough")
    served.until(lambda: len(served.bodies(run, e.NoticeEnded)) == 2)
    assert (place / "first").read_text() == (place / "second").read_text() == "cancelled\n"


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("", "expected a command or"),
        ("http://hooks.example/x", "expected https://"),
        ("https://", "without a host"),
        ("https://hooks.example/a b", "without a host"),
        ("https://hooks.example:notaport/", "without a host"),
    ],
)
def test_a_target_that_can_be_told_nothing_is_refused(target: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        check_targets([target], is_offline=False)


def test_offline_nothing_is_posted_elsewhere() -> None:
    check_targets(["http://127.0.0.1:1/x", "notify-send done"], is_offline=True)
    with pytest.raises(UsageError, match="as gx is offline"):
        check_targets(["https://hooks.example/x"], is_offline=True)


def test_of_an_address_only_scheme_and_host_are_named() -> None:
    assert destination("https://user:pw@Hooks.example:8443/s3cret?t=1#x") == "https://hooks.example:8443"
    assert destination("curl https://hooks.example/s3cret") == "command"
    assert without_secrets(["https://h.example/x", "mail me"]) == ("mail me",)


def test_a_command_gets_no_secrets_of_the_environment(tmp_path: Path) -> None:
    from gx.node.notices import Counts, Notice

    tasks = Counts(succeeded=1, failed=0, skipped=0, cancelled=0, left=0)
    made = Notice(
        event="ended", run="r", status="finished", exit_code=0, tasks=tasks, tokens_in=1, tokens_out=1, usd=0.0, at=0.0
    )
    found = environment(made, {"PATH": "/bin", "HF_TOKEN": "s3cret", "MODAL_TOKEN_SECRET": "s3cret"})
    assert found["PATH"] == "/bin" and found["GX_RUN"] == "r"
    assert "s3cret" not in found.values()


def test_a_command_that_is_printed_again_has_no_address_in_it() -> None:
    address = "https://me:pw@h.example:8443/SECRET?k=SECRET"
    typed = ["run", "r.yaml", "--notify", address, "--notify=https://h.example/S"]
    kept = ["--notify", "say done", "-m", "https://models.example/m.gguf#sha256=ab"]
    cut = ["run", "r.yaml", "--notify", "https://h.example:8443/…", "--notify=https://h.example/…"]
    assert told_again([*typed, *kept]) == [*cut, *kept]
