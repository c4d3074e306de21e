"""The unmodified SDK and the real container entry point against the loopback, on a good day."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import modal
import modal.exception
import pytest

from tests.cloud.world import WAIT_S, World


def test_a_deployed_class_is_found_by_name_and_gives_bytes_for_bytes(calm: World) -> None:
    assert calm.worker()().echo.remote(b"\x00 bytes") == b"\x00 bytes"


def test_spawned_calls_are_all_collected(calm: World) -> None:
    worker = calm.worker()()
    with ThreadPoolExecutor(16) as window:
        calls = list(window.map(lambda n: worker.echo.spawn(b"%d" % n), range(200)))
        assert list(window.map(lambda call: call.get(timeout=WAIT_S), calls)) == [b"%d" % n for n in range(200)]


@pytest.mark.parametrize("size", [9 << 10, 3 << 20])
def test_a_large_payload_travels_both_ways_as_a_blob(calm: World, size: int) -> None:
    before = calm.report().blob_bytes
    assert calm.worker()().echo.spawn(b"x" * size).get(timeout=WAIT_S) == b"x" * size
    assert calm.report().blob_bytes - before >= 2 * size


def test_a_call_outlives_the_client_that_spawned_it(calm: World) -> None:
    call_id = calm.python(
        "import modal, os\n"
        "call = modal.Cls.from_name('loopback-tests', 'Worker')().echo.spawn(b'still here')\n"
        "print(call.object_id, flush=True); os._exit(0)"
    ).strip()
    assert modal.FunctionCall.from_id(call_id, client=calm.client).get(timeout=WAIT_S) == b"still here"


def test_a_poll_of_zero_seconds_says_that_it_is_too_early(calm: World) -> None:
    call = calm.worker()().nap.spawn(30)
    with pytest.raises(TimeoutError):
        call.get(timeout=0)
    call.cancel()


def test_an_unknown_call_or_app_or_class_is_not_found(calm: World) -> None:
    with pytest.raises(modal.exception.NotFoundError):
        modal.FunctionCall.from_id("fc-unknown", client=calm.client).get(timeout=0)
    for app, cls in (("nothing", "Worker"), ("loopback-tests", "Nothing")):
        with pytest.raises(modal.exception.NotFoundError):
            calm.worker(app, cls)().echo.spawn(b"")


def test_an_exception_in_a_method_is_raised_at_the_client(calm: World) -> None:
    with pytest.raises(ValueError, match="out of paper"):
        calm.worker()().fail.spawn("out of paper").get(timeout=WAIT_S)


def test_cancelling_one_input_leaves_its_neighbours_alone(calm: World) -> None:
    worker = calm.worker()()
    calls = [worker.nap.spawn(seconds) for seconds in (2.5, 30, 2.5)]
    calm.until(lambda report: report.calls.get("running", 0) >= 3)
    calls[1].cancel()
    with pytest.raises(modal.exception.RemoteError):
        calls[1].get(timeout=WAIT_S)
    homes = [calls[n].get(timeout=WAIT_S) for n in (0, 2)]
    ended = {stay.task_id for stay in calm.report().containers if stay.ended_at_s is not None}
    assert ended.isdisjoint(homes)
    worker.echo.remote(b"")  # a container that was told still serves


def test_a_cancelled_input_stops_in_its_container(calm: World) -> None:
    call = calm.worker()().nap.spawn(60)
    calm.until(lambda report: report.calls.get("running", 0) >= 1)
    call.cancel()
    assert calm.printed("a nap was cancelled")


def test_cancelling_with_its_container_queues_the_neighbours_again(calm: World) -> None:
    worker = calm.worker().with_concurrency(max_inputs=2)()
    doomed, neighbour = worker.nap.spawn(60), worker.nap.spawn(1)
    calm.until(lambda report: report.calls.get("running", 0) >= 2)
    doomed.cancel(terminate_containers=True)
    assert neighbour.get(timeout=WAIT_S).startswith("ta-")
    assert any(stay.reason == "its input was cancelled" for stay in calm.report().containers)


def test_a_container_sees_its_images_and_secrets_variables_and_none_of_the_desks(
    calm: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GX_TEST_OF_THE_DESK", "secret")
    seen = calm.worker()().variables.remote()
    assert seen == {"COLOUR": "deep red", "TOKEN": "t0k", "GX_TEST_OF_THE_DESK": ""}


def test_a_file_put_on_a_volume_is_listed_read_and_seen_by_containers(calm: World) -> None:
    volume = modal.Volume.from_name("models", client=calm.client)
    for name, data in {"small.gguf": b"GGUF", "folder/large.gguf": b"G" * (5 << 20)}.items():
        with volume.batch_upload() as batch:
            batch.put_file(io.BytesIO(data), name)
        assert b"".join(volume.read_file(name)) == data
        assert calm.worker()().model.remote(name) == data
    assert {entry.path for entry in volume.listdir("/", recursive=True)} >= {"small.gguf", "folder/large.gguf"}
    with pytest.raises(FileExistsError), volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"other"), "small.gguf")


def test_a_volume_of_version_2_takes_blocks(calm: World) -> None:
    data = bytes(range(256)) * (36 << 10)  # more than one block of 8 MiB
    volume = modal.Volume.from_name("second", create_if_missing=True, version=2, client=calm.client)
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(data), "model.gguf")
    assert b"".join(volume.read_file("model.gguf")) == data
    volume.remove_file("model.gguf")
    assert volume.listdir("/") == []


def test_a_claim_in_a_dict_has_one_winner(calm: World) -> None:
    worker, claims = calm.worker()(), modal.Dict.from_name("claims", client=calm.client)
    calls = [worker.claim.spawn("task-1") for _ in range(8)]
    won = [call.object_id for call in calls if call.get(timeout=WAIT_S)]
    assert won == [claims["task-1"]]
    assert claims.contains("task-1")
    assert not claims.contains("task-2")
    claims.update({"task-2": 1, "task-3": 2})
    assert (claims.pop("task-2"), claims.get("task-2"), claims.len()) == (1, None, 2)
    assert {key for key, _ in claims.items()} == {"task-1", "task-3"}


def test_news_in_a_queue_come_while_the_call_runs(calm: World) -> None:
    call = calm.worker()().pid_then_nap.spawn(60)
    assert modal.Queue.from_name("news", create_if_missing=True, client=calm.client).get(timeout=WAIT_S) > 0
    with pytest.raises(TimeoutError):
        call.get(timeout=0)
    call.cancel()


def test_options_make_a_pool_of_their_own_and_are_on_the_ledger(calm: World) -> None:
    options = {"gpu": "H100:2", "scaledown_window": 2}
    assert calm.worker().with_options(**options)().echo.remote(b"") == b""
    assert [(stay.gpu_count, stay.inputs) for stay in calm.report().containers if stay.gpu == "H100"] == [(2, 1)]


@pytest.mark.filterwarnings("ignore:.*update_autoscaler")  # the SDK's own, of its own method
def test_a_container_is_kept_warm_as_long_as_the_autoscaler_is_told_so(calm: World) -> None:
    pool = calm.worker().with_options(gpu="T4", scaledown_window=2)()
    said = pool.update_autoscaler(min_containers=1)
    assert said.min_containers == 1
    calm.until(lambda report: any(s.gpu == "T4" and s.serving_at_s for s in report.containers))
    assert pool.echo.get_current_stats().num_total_runners == 1
    pool.update_autoscaler(min_containers=0)
    report = calm.until(lambda report: all(s.ended_at_s for s in report.containers if s.gpu == "T4"))
    assert [(s.inputs, s.reason) for s in report.containers if s.gpu == "T4"] == [(0, "scaled down")]


def test_containers_are_added_up_to_the_limit_and_go_when_idle(calm: World) -> None:
    narrow = calm.worker(cls="Narrow")()
    homes = {call.get(timeout=WAIT_S) for call in [narrow.hold.spawn(0.5) for _ in range(6)]}
    assert len(homes) == 2
    report = calm.until(lambda report: all(s.ended_at_s for s in report.containers if s.function == "Narrow.*"))
    stays = [stay for stay in report.containers if stay.function == "Narrow.*"]
    assert {stay.task_id for stay in stays} == homes
    assert [stay.reason for stay in stays] == ["scaled down"] * 2
    assert sum(stay.inputs for stay in stays) == 6


def test_an_input_that_takes_too_long_is_timed_out(calm: World) -> None:
    with pytest.raises(modal.exception.FunctionTimeoutError):
        calm.worker(cls="Hasty")().nap.spawn(60).get(timeout=WAIT_S)


def test_this_project_cannot_be_imported_in_a_container(calm: World) -> None:
    worker = calm.worker()()
    for name in ("gx", "edge", "cloud"):
        assert worker.can_import.remote(name) == f"No module named '{name}'"
    assert "site-packages" in worker.can_import.remote("msgspec")


def test_a_source_that_was_not_shipped_fails_the_start_and_the_client_sees_why(calm: World) -> None:
    calm.deploy("forgetful_app")
    with pytest.raises(ModuleNotFoundError, match="No module named 'gx'"):
        calm.worker("forgetful")().name.spawn().get(timeout=WAIT_S)


def test_a_source_that_was_shipped_is_imported_from_the_containers_own_root(calm: World) -> None:
    calm.deploy("complete_app")
    place = calm.worker("complete")().place.remote()
    assert place.startswith(str((calm.folder / "containers").resolve()))
    assert place.endswith("/root/gx/core/errors.py")


def test_an_app_that_is_run_ends_with_its_client(calm: World) -> None:
    said = calm.python(
        "import loopback_app as it\nwith it.app.run():\n    print(it.double.remote(21), it.app.app_id)"
    ).split()
    assert said[0] == "42"
    calm.until(lambda report: all(s.ended_at_s for s in report.containers if s.function == "double"))


def test_logs_are_read_and_an_app_is_stopped_with_modals_own_command(calm: World) -> None:
    calm.python("import loopback_app as it; it.app.deploy(name='to-stop')")
    call = calm.worker("to-stop")().nap.spawn(60)
    calm.until(lambda report: any(s.app == "to-stop" and s.inputs for s in report.containers))
    assert "the worker is loaded" in command(calm, "app", "logs", "to-stop")
    command(calm, "app", "stop", "--yes", "to-stop")
    with pytest.raises(modal.exception.RemoteError):
        call.get(timeout=WAIT_S)
    calm.until(lambda report: all(s.ended_at_s for s in report.containers if s.app == "to-stop"))
    with pytest.raises(modal.exception.NotFoundError):
        calm.worker("to-stop")().echo.spawn(b"")


def command(calm: World, *words: str) -> str:
    """What a command of Modal's own prints."""
    done = subprocess.run(
        [sys.executable, "-m", "modal", *words],
        env={**os.environ, **calm.environ},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_a_client_without_the_planes_token_is_turned_away(calm: World) -> None:
    stranger = modal.Client.from_credentials("ak-stranger", "as-stranger")
    with pytest.raises(modal.exception.AuthError, match="token"):
        modal.Cls.from_name("loopback-tests", "Worker", client=stranger)().echo.spawn(b"")
    stranger.close()


def test_a_start_that_takes_too_long_is_told_to_the_client(calm: World) -> None:
    with pytest.raises(modal.exception.RemoteError, match="start-up time-out of 1 s"):
        calm.worker(cls="Sleeper")().late.spawn().get(timeout=WAIT_S)


def test_a_new_deployment_replaces_the_containers_of_the_old_one(calm: World) -> None:
    calm.python("import loopback_app as it; it.app.deploy(name='twice')")
    first = calm.worker("twice")().nap.remote(0)
    calm.python("import loopback_app as it; it.app.deploy(name='twice')")
    report = calm.until(lambda report: any(s.task_id == first and s.ended_at_s for s in report.containers))
    assert next(s.reason for s in report.containers if s.task_id == first) == "replaced by a new deployment"
    assert calm.worker("twice")().nap.remote(0) != first
