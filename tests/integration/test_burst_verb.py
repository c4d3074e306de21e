"""`gx burst --rehearse`: the code of a burst from the command line to the container and back, for nothing."""

from __future__ import annotations

import os
import pty
import subprocess

from gx.output import ExitCode
from tests import nodes
from tests.integration.project import GX, Project

FORCED = ("burst", "--rehearse", "--force", "--max-containers", "1", "--gpu", "L4")
MORE = [{"id": f"more-{n}", "text": f"Say {n} again."} for n in range(60)]
"""So many rows that this machine is not done before a container is up."""
BUSY = "SELECT count(*) AS n FROM tasks WHERE status = 'leased'"


def test_a_recipe_is_rehearsed_with_containers_and_told_what_it_would_have_cost(slow: Project) -> None:
    slow.add(*MORE)
    done = slow.run(*FORCED, "recipe.yaml", "-i", "rows.jsonl")
    assert (done.status, len(done.records)) == (ExitCode.ok, 80), done.err
    assert "may leave this machine: prompts of step s" in done.err
    assert "nothing was spent" in done.err
    (spent,) = slow.run("spend", "--json").records
    assert spent["tokens_rented"] > 0 and spent["usd"] == 0 and spent["usd_rehearsed"] > 0
    assert f"rehearsed: 1 x L4 would have cost ${spent['usd_rehearsed']:.4f}: " in done.err, "as `gx spend` has it"
    by_gpu = {row["gpu"]: row for row in slow.run("spend", "--by", "gpu", "--json").records}
    assert by_gpu["L4"]["tokens"] == spent["tokens_rented"] and by_gpu["this machine"]["tokens"] > 0
    slow.assert_nothing_was_computed_twice()


def test_a_live_run_may_rent_from_now_on(slow: Project) -> None:
    slow.add(*MORE)
    out, _ = slow.start("run", "recipe.yaml", "-i", "rows.jsonl", "--detach").process.communicate(timeout=180)
    run = out.decode().strip()
    assert nodes.until(lambda: slow.ask_live(BUSY)[0]["n"])
    done = slow.run(*FORCED)
    assert done.status == ExitCode.ok and f"{run} may rehearse with up to 1 container (L4)" in done.err, done.err
    assert slow.run("wait", run).status == ExitCode.ok
    assert slow.run("spend", run, "--json").records[0]["containers"] == 1


def test_money_needs_leave_and_the_exact_command_is_told(slow: Project) -> None:
    done = slow.run("burst", "--cloud", "recipe.yaml", "-i", "rows.jsonl", "--gpu", "L4")
    assert done.status == ExitCode.usage and "estimate: " in done.err
    assert "hint: gx burst --cloud recipe.yaml -i rows.jsonl --gpu L4 --budget '$" in done.err
    done = slow.run("run", "recipe.yaml", "-i", "rows.jsonl", "--burst", "auto")
    assert done.status == ExitCode.usage and "--burst auto --budget '$" in done.err
    assert slow.node is None, "nothing began"


def test_on_a_terminal_it_asks_and_no_rents_nothing(slow: Project) -> None:
    ours, theirs = pty.openpty()
    words = [*GX, "burst", "--cloud", "recipe.yaml", "-i", "rows.jsonl", "--gpu", "L4"]
    with subprocess.Popen(words, cwd=slow.folder, env=slow.env, stdin=theirs, stdout=theirs, stderr=theirs) as asking:
        os.close(theirs)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(ours, 4096)
        os.write(ours, b"n\n")
        assert asking.wait(60) == ExitCode.error
    os.close(ours)
    assert b"cap: $" in said and slow.node is None


def test_a_run_that_may_not_burst_runs_as_ever(slow: Project) -> None:
    done = slow.run("run", "recipe.yaml", "-i", "rows.jsonl", "--limit", "2", "--burst", "off")
    assert (done.status, len(done.records)) == (ExitCode.ok, 2)


def test_without_a_token_a_burst_goes_on_here_and_says_why(slow: Project) -> None:
    words = ("run", "recipe.yaml", "-i", "rows.jsonl", "--burst", "force", "--budget", "$5.00")
    done = slow.run(*words, MODAL_CONFIG_PATH="/nonexistent")
    assert (done.status, len(done.records)) == (ExitCode.ok, 20), done.err
    assert slow.run("spend", "--json").records[0]["usd"] == 0
