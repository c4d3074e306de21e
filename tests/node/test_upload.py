"""A client's stdin in the node: half of it is never the whole of it, and nobody waits for what won't come."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.to_thread
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gx.node.upload import AHEAD, Upload

pytestmark = pytest.mark.anyio


def gone() -> OSError:
    return ConnectionError(0, "the client that sent it went away")


async def write(upload: Upload, *chunks: bytes | OSError | None) -> None:
    for chunk in chunks:
        assert await upload.write_on(chunk)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=3 * AHEAD), st.integers(1, 500), st.booleans())
def test_all_that_was_sent_is_read_and_its_end_only_if_it_was_said(chunks: list[bytes], size: int, is_whole: bool):
    upload = Upload()
    upload.claim()
    got = bytearray()

    def read() -> str:
        try:
            while part := upload.read(size):
                got.extend(part)
        except ConnectionError as error:
            with pytest.raises(ConnectionError):
                upload.read(size)  # it is not read on by asking again
            return str(error)
        return "the end"

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        anyio.run(write, upload, *chunks, None if is_whole else gone())
        ended = reader.result(60)
    assert bytes(got) == b"".join(chunks)
    assert (ended == "the end") == is_whole


async def test_a_client_waits_while_the_reader_is_behind() -> None:
    upload = Upload()
    upload.claim()
    await write(upload, *[b"x"] * AHEAD)
    with anyio.move_on_after(0.05) as scope:
        await upload.write_on(b"one more")
    assert scope.cancelled_caught
    assert upload.read(1) == b"x"
    with anyio.fail_after(60):
        assert await upload.write_on(b"y")


async def test_what_is_refused_is_wanted_no_more_and_its_client_waits_no_longer() -> None:
    upload = Upload()
    upload.claim()
    await write(upload, *[b"x"] * AHEAD)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(upload.write_on, b"one more")
            await anyio.wait_all_tasks_blocked()
            upload.refuse()
        assert not await upload.write_on(b"another")
        assert not await upload.write_on(None)


async def test_a_reader_that_waits_is_let_go_when_the_input_is_refused_and_reads_no_end() -> None:
    upload = Upload()
    upload.claim()
    reads, ended = threading.Event(), list[str]()

    def read() -> None:
        reads.set()
        try:
            ended.append(f"read {upload.read(10)!r}")
        except OSError as error:
            ended.append(str(error.strerror))

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, read)
        await anyio.to_thread.run_sync(reads.wait)
        upload.refuse()
    assert ended == ["nobody reads on"]
    with pytest.raises(OSError, match="nobody reads on"):
        upload.read(10)


async def test_the_end_that_was_said_before_a_refusal_is_no_end_after_it() -> None:
    upload = Upload()
    await write(upload, b"half of", None)
    upload.refuse()
    with pytest.raises(OSError, match="nobody"):
        upload.read()


async def test_an_input_that_nobody_claims_is_given_up_in_time() -> None:
    upload = Upload(unclaimed_s=0.05)
    await write(upload, *[b"x"] * AHEAD)
    with anyio.fail_after(60):
        assert not await upload.write_on(b"one more")


async def test_an_input_that_is_claimed_meanwhile_is_not_given_up() -> None:
    upload = Upload(unclaimed_s=0.05)
    await write(upload, *[b"x"] * AHEAD)
    with anyio.move_on_after(0.2) as scope:
        upload.claim()
        await upload.write_on(b"one more")
    assert scope.cancelled_caught


async def test_small_chunks_are_read_by_lines() -> None:
    upload = Upload()
    await write(upload, b'{"a"', b": 1}\n{", b'"b": 2}', b"\n", None)
    assert upload.readable()
    assert list(upload) == [b'{"a": 1}\n', b'{"b": 2}\n']
