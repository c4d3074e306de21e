"""Every request finds a lane or waits for one, and the lanes stay within their memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.engine.room import LaneState, Make, Use, Wait, choose

CONTEXT, SLOTS, BUDGET = 8192, 32, 100_000


def ask(need: int, *lanes: LaneState, budget: int = BUDGET, is_behind: bool = False) -> Use | Make | Wait:
    return choose(need, lanes, context_tokens=CONTEXT, n_slots=SLOTS, budget_tokens=budget, is_behind=is_behind)


def lane(slot_tokens: int, n_slots: int, n_free: int, used_at: int = 0) -> LaneState:
    return LaneState(slot_tokens, n_slots, n_free, used_at)


def test_short_requests_get_many_slots_and_a_long_one_few() -> None:
    assert ask(300) == Make(1024, 32)
    assert ask(8000, lane(1024, 32, 5)) == Make(8192, BUDGET // 2 // 8192)


def test_a_lane_that_suits_is_used_the_tightest_first() -> None:
    assert ask(900, lane(4096, 4, 4), lane(1024, 32, 1)) == Use(1)
    assert ask(900, lane(4096, 4, 4), lane(1024, 32, 0)) == Use(0)


def test_requests_that_run_anyway_share_a_lane() -> None:
    assert ask(900, lane(1024, 32, 32), lane(2048, 32, 20)) == Use(1)
    assert ask(900, lane(1024, 32, 20), lane(2048, 32, 31)) == Use(0)


def test_long_slots_are_kept_for_long_requests() -> None:
    assert ask(900, lane(8192, 4, 4)) == Make(1024, 32)


def test_idle_lanes_make_way_the_longest_unused_first() -> None:
    assert ask(8000, lane(1024, 64, 64, 1), lane(2048, 16, 16, 2)) == Make(8192, BUDGET // 2 // 8192, (0,))


def test_who_finds_no_room_waits_while_others_run() -> None:
    assert ask(8000, lane(1024, 96, 3)) == Wait(for_lane=True)
    assert ask(900, lane(1024, 32, 0)) == Wait()


def test_a_lane_of_few_slots_that_is_full_does_not_keep_others_from_one_of_their_own() -> None:
    assert ask(1500, lane(8192, 1, 0), budget=30_000) == Make(2048, 7)
    assert ask(1500, lane(8192, 1, 0), lane(1024, 16, 16), budget=30_000) == Make(2048, 7, (1,))
    assert ask(1500, lane(8192, 3, 0), budget=25_000) == Wait()  # there is no room, and it is waited for a slot
    assert ask(1500, lane(8192, 1, 0), budget=30_000, is_behind=True) == Wait()
    assert ask(1500, lane(4096, 16, 0), lane(2048, 16, 0)) == Wait()
    assert ask(900, lane(1024, 14, 0), budget=30_000) == Wait()  # it has all that one size may have


def test_who_waits_for_a_lane_is_overtaken_only_by_what_ends_before_those_it_waits_for() -> None:
    busy = lane(1024, 96, 3)._replace(left_tokens=500)
    assert ask(499, busy, is_behind=True) == Use(0)
    assert ask(500, busy, is_behind=True) == Wait()
    assert ask(8000, busy._replace(n_slots=32, n_free=3), is_behind=True) == Wait()  # there was memory for two lanes


def test_a_model_that_was_loaded_can_answer_whatever_the_memory() -> None:
    assert ask(8000, budget=10) == Make(8192, 1)


LANES = st.lists(
    st.builds(
        lambda size, slots, free, used: LaneState(1024 * 2**size, slots, min(free, slots), used),
        st.integers(0, 3),
        st.integers(1, 32),
        st.integers(0, 32),
        st.integers(0, 9),
    ),
    max_size=5,
)


@given(st.integers(1, CONTEXT), LANES, st.integers(1, 400_000))
def test_a_choice_has_room_and_keeps_the_budget(need: int, lanes: list[LaneState], budget: int) -> None:
    choice = choose(need, lanes, context_tokens=CONTEXT, n_slots=SLOTS, budget_tokens=budget)
    if isinstance(choice, Use):
        assert lanes[choice.lane].n_free and lanes[choice.lane].slot_tokens >= need
    elif isinstance(choice, Make):
        assert all(lanes[i].is_free for i in choice.drop)
        kept = sum(lane.tokens for i, lane in enumerate(lanes) if i not in choice.drop)
        assert need <= choice.slot_tokens <= CONTEXT and 1 <= choice.n_slots <= SLOTS
        assert kept + choice.slot_tokens * choice.n_slots <= budget or (kept == 0 and choice.n_slots == 1)
    else:
        assert not all(lane.is_free for lane in lanes)
