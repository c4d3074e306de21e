"""What waits for the loop: it is taken once, in order, and nothing is slept over."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from gx.core import event as e
from gx.run.contents import blob_of
from gx.run.pending import Pending

pytestmark = pytest.mark.anyio

ONE, TWO = e.RunPaused(run="one"), e.RunPaused(run="two")


async def test_what_was_put_is_taken_once_in_the_order_in_which_it_came() -> None:
    pending, blob = Pending(), blob_of(b"it")
    pending.put([ONE])
    pending.put([TWO], [blob])
    assert pending.take() == ([ONE, TWO], [blob])
    assert pending.take() == ([], [])


async def test_what_was_put_while_the_loop_was_at_something_else_is_not_slept_over() -> None:
    pending = Pending()
    pending.take()
    pending.put([ONE])
    with anyio.fail_after(60):
        await pending.rung(within_s=3600)
    assert pending.take() == ([ONE], [])


async def test_a_bell_is_heard_once_and_nothing_that_is_put_rings_none() -> None:
    pending = Pending()
    pending.ring()
    assert "rung for" in repr(pending)
    with anyio.fail_after(60):
        await pending.rung(within_s=3600)
    pending.put([])
    assert "rung for" not in repr(pending)


async def test_the_loop_sleeps_no_longer_than_it_wants() -> None:
    pending = Pending()
    with anyio.fail_after(60):
        await pending.rung(within_s=0.001)
    assert pending.take() == ([], [])


async def test_who_waits_until_it_is_taken_goes_on_though_there_was_nothing() -> None:
    pending = Pending()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(pending.taken)
            await anyio.lowlevel.checkpoint()
            pending.take()


async def test_input_waits_while_too_much_does() -> None:
    pending = Pending()
    pending.put([ONE] * 8192)
    assert not pending.is_full
    pending.put([TWO])
    assert pending.is_full
    pending.take()
    assert not pending.is_full
