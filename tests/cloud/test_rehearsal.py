"""The rehearsal's stand: a loopback as a child process, furnished with links, that ends with whoever began it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from cloud import deploy
from cloud.cost import RATES
from cloud.loopback.faults import Faults
from cloud.message import Weights
from cloud.rehearsal import Bill, Rehearsed, priced, rehearsing
from cloud.rented import Account, Pool, rent
from cloud.worker import CloudWorker
from gx.core.errors import CloudError
from gx.core.message import Answer, Message, Sampling, Turn
from gx.core.ports import AttemptEnded
from gx.core.task import Quote
from tests.nodes import processes, until
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.anyio


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def is_alive(pid: int) -> bool:
    return any(p.pid == pid for p in processes())


async def test_it_has_the_app_models_as_links_and_a_bill_and_ends_when_left(tmp_path: Path) -> None:
    tiny = write_tiny_model(tmp_path / "tiny.gguf", context=512)
    digest = sha256(tiny)
    async with rehearsing(tmp_path / "stand", faults=Faults(refuse=(2,))) as stand:
        there = await deploy.status(stand.account)
        assert there.app is not None and there.is_current() and there.models == {}
        await stand.furnish({digest: tiny})
        await stand.furnish({digest: tiny})
        assert (await deploy.status(stand.account)).models == {digest: tiny.stat().st_size}
        (copy,) = (tmp_path / "stand" / "volumes").rglob("*.gguf")
        assert copy.stat().st_ino == tiny.stat().st_ino, "it is the file itself: nothing went up"
        pool = Pool(run="r", gpu="L4", slots=2, max_containers=1, scaledown_s=2)
        async with (
            rent(pool, stand.account) as calls,
            CloudWorker(calls, run="r", gpu="L4", driver="d", inputs=4, quote=Quote()) as worker,
        ):
            worker.register(Weights(digest="tiny", sha256=digest, context_tokens=512))
            worker.scale(1)
            worker.vouch(time.time() + 600)
            said = (Message(role="user", content="Hello"),)
            sampling = Sampling(max_tokens=4)
            for task in "ab":
                worker.submit(Turn(run="r", task=task, attempt=1, model="tiny", messages=said, sampling=sampling))
            ended: list[AttemptEnded] = []
            with anyio.fail_after(150):
                while len(ended) < 2:
                    ended += [one for one in await worker.events() if isinstance(one, AttemptEnded)]
            assert all(isinstance(one.outcome, Answer) for one in ended)
        seen = await stand.report()
        (bill,) = seen.bills
        assert (bill.gpu, bill.containers, bill.inputs) == ("L4", 1, 2) and bill.busy_s > 0 and bill.loading_s > 0
        assert seen.usd == pytest.approx(RATES["L4"].usd_per_s * bill.billed_s)
        assert sum(seen.calls.values()) == 2 and seen.faults == ("refused spawn 2",)
        pid = stand.pid
        assert is_alive(pid)
    assert until(lambda: not is_alive(pid))


def test_it_ends_when_whoever_began_it_is_killed(tmp_path: Path) -> None:
    code = f"""
import anyio
from pathlib import Path
from cloud.rehearsal import rehearsing
async def main():
    async with rehearsing(Path({str(tmp_path / "stand")!r})) as stand:
        print(stand.pid, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(60)
    assert until(lambda: not is_alive(pid))


async def test_a_folder_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CloudError) as failed:
        async with rehearsing(tmp_path / "file" / "stand"):
            raise AssertionError
    assert failed.value.code == "cloud.rehearsal" and str(tmp_path) in failed.value.hint


async def test_a_file_that_is_not_what_it_is_called_does_not_go_up(tmp_path: Path) -> None:
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(b"other weights")
    with pytest.raises(CloudError, match="expected the SHA-256 abababababab"):
        nobody = Account(token_id="a", token_secret="b", url="http://127.0.0.1:9")
        await deploy.upload(nobody, "ab" * 32, changed)


def test_seconds_without_a_known_price_are_told_and_cost_nothing() -> None:
    seconds = {"containers": 1, "inputs": 1, "billed_s": 10.0, "loading_s": 2.0, "busy_s": 5.0, "idle_s": 3.0}
    seen = priced(Rehearsed(bills=(Bill(gpu="L4", **seconds), Bill(gpu="X1", **seconds))), RATES)  # type: ignore[arg-type]
    assert [bill.usd for bill in seen.bills] == [pytest.approx(10 * RATES["L4"].usd_per_s), None]
    assert (seen.containers, seen.loading_s, seen.busy_s, seen.idle_s) == (2, 4.0, 10.0, 6.0)
    assert seen.usd == pytest.approx(10 * RATES["L4"].usd_per_s)
