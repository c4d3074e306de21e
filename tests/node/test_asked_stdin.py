"""A client's stdin at the node: it reaches its own run, and half of it is never taken for the whole."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gx.core import event as e
from gx.core.errors import RecipeError
from gx.core.view import RunStatus
from gx.node import wire
from gx.node.client import Started
from tests.node.served import ENDLESS, PATIENCE_S, Served, ended, recipe, records


def lines(count: int, size: int = 10) -> list[bytes]:
    return [json.dumps({"id": f"r{n}", "text": "x" * size}).encode() + b"\n" for n in range(count)]


def streamed(served: Served, name: str, token: str, **more: Any) -> Started:
    return served.submit(recipe(name), inputs="-", input_format="jsonl", token=token, **more)


def test_an_input_is_sent_as_it_comes(served: Served) -> None:
    token = "11" * 6

    def chunks():
        for line in lines(5):
            time.sleep(0.01)
            yield line

    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(served.http.put, f"/v1/inputs/{token}", content=chunks())
        run = streamed(served, "streamed", token).run
        assert len(records(served.watch(run))) == 5
        assert sent.result().status_code == 200


def test_half_an_input_is_not_taken_for_a_whole_one(served: Served) -> None:
    token = "22" * 6

    def broken():
        yield from lines(3)
        raise ConnectionError("the client dies")

    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(served.http.put, f"/v1/inputs/{token}", content=broken())
        run = streamed(served, "half", token).run
        end = wire.ended(served.watch(run)[-1].end)
        assert isinstance(sent.exception(), Exception)
    assert end.status is RunStatus.interrupted
    assert end.error is not None
    assert "can't be read on" in end.error.message
    assert not served.bodies(run, e.InputsEnded)


def test_inputs_of_runs_that_are_asked_for_at_once_reach_their_own_run(served: Served) -> None:
    """Each submission comes before its input, as may happen."""
    tokens = [f"3{n}" * 6 for n in range(4)]
    with ThreadPoolExecutor(8) as pool:
        started = [pool.submit(streamed, served, f"own-{n}", token) for n, token in enumerate(tokens)]
        time.sleep(0.1)
        for n, token in enumerate(tokens):
            assert served.http.put(f"/v1/inputs/{token}", content=b"".join(lines(n + 1))).status_code == 200
        runs = [one.result(PATIENCE_S).run for one in started]
    assert [len(records(served.watch(run))) for run in runs] == [1, 2, 3, 4]


def large():
    """More than may wait for a reader."""
    for _ in range(400):
        yield b"\n" * (1 << 16)


@pytest.mark.parametrize("why", ["refused", "joined", "sent again"])
def test_an_input_that_nobody_will_read_holds_up_nobody(served: Served, why: str) -> None:
    token = {"refused": "44", "joined": "55", "sent again": "66"}[why] * 6
    more: dict[str, Any] = {"inputs": "-", "input_format": "jsonl", "name": "shared"}
    if why == "joined":
        assert served.http.put("/v1/inputs/" + "88" * 6, content=b"".join(lines(3))).status_code == 200
        live = served.submit(recipe("named", tokens=ENDLESS), token="88" * 6, is_detached=True, **more).run
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(served.http.put, f"/v1/inputs/{token}", content=large())
        served.until(lambda: served.inside(lambda: token in served.api._uploads))
        if why == "refused":
            with pytest.raises(RecipeError):
                served.submit("nonsense", token=token, **more)
        elif why == "sent again":
            assert served.http.put(f"/v1/inputs/{token}", content=b"").status_code == 200
        else:
            again = served.submit(recipe("named", tokens=ENDLESS), token=token, **more)
            assert (again.run, again.is_resumed) == (live, True)
        try:
            assert sent.result(PATIENCE_S).status_code == 200
        except httpx.TransportError:  # the node closes a connection that goes on sending
            pass
    served.until(lambda: served.inside(lambda: served.api.n_open) == 0)


def test_a_run_that_ends_lets_go_of_its_input(served: Served) -> None:
    token = "77" * 6

    def endless_rows():
        yield from lines(2)
        while not is_over:
            time.sleep(0.02)
            yield b"\n"

    is_over: list[bool] = []
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(served.http.put, f"/v1/inputs/{token}", content=endless_rows())
        run = streamed(served, "let go", token, is_detached=True).run
        served.until(lambda: served.bodies(run, e.TaskSucceeded))
        served.tell(run, "stop")
        end = ended(served, run)
        assert (end.run.status, end.error) == (RunStatus.interrupted, None)
        served.until(lambda: served.inside(lambda: served.api.n_open) == 0)
        is_over.append(True)
        assert isinstance(sent.exception(), httpx.TransportError | None)  # the node closes what goes on sending
