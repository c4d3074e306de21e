"""Which containers don't work, and which tasks no container can do, by what was answered."""

from __future__ import annotations

from cloud.failing import MOST_TRIES, Failing

HOLDS = 4


def working(*containers: str) -> Failing:
    """Where those have worked."""
    failing = Failing(HOLDS)
    for container in containers:
        failing.worked(container)
    return failing


def test_where_no_container_ever_worked_they_don_t() -> None:
    assert Failing(HOLDS).failed("a", "t")
    assert Failing(HOLDS).failed("", "t"), "they took too long, and none ever did not"


def test_one_that_fails_may_be_the_exception_and_a_second_one_with_nothing_done_between_is_not() -> None:
    failing = working("a", "b", "c")
    assert not failing.failed("a", "t1") and not failing.failed("a", "t2")
    failing.worked("c")
    assert not failing.failed("b", "t3")
    assert failing.failed("a", "t4")


def test_one_that_worked_and_then_does_nothing_any_more_is_found_out_alone_and_beside_others_that_work() -> None:
    for beside in (False, True):
        failing = working("a", "b")
        found = list[bool]()
        for number in range(HOLDS):
            found.append(failing.failed("a", f"t{number}"))
            if beside:
                failing.worked("b")
        assert found == [False] * (HOLDS - 1) + [True]
        assert failing.failed("a", "more"), "it still does nothing"
        failing.worked("a")
        assert not failing.failed("a", "t")


def test_inputs_that_take_too_long_are_no_containers_that_fail_unless_nothing_else_is_heard() -> None:
    failing = working("a")
    assert [failing.failed("", f"t{number}") for number in range(HOLDS)] == [False] * (HOLDS - 1) + [True]
    failing.worked("a")
    assert not failing.failed("", "t") and not failing.failed("a", "t")


def test_a_task_is_to_blame_once_the_container_that_could_not_do_it_has_done_another() -> None:
    failing = working("a")
    failing.failed("a", "t")
    failing.worked("b")
    assert not failing.is_undoable("t"), "that says nothing of the container that failed"
    failing.worked("a")
    assert failing.is_undoable("t") and not failing.is_undoable("u")


def test_nothing_is_to_blame_for_containers_that_never_work() -> None:
    failing = Failing(HOLDS)
    for container in "abc":
        failing.failed(container, "t")
    failing.worked("d")
    assert not failing.is_undoable("t")


def test_a_task_that_fails_again_and_again_while_others_are_done_is_to_blame_wherever_it_failed() -> None:
    failing = Failing(HOLDS)
    for number in range(2 * MOST_TRIES):
        failing.failed(f"call {number}", "t")
    assert not failing.is_undoable("t"), "nothing was ever done"
    failing.worked("a")
    for number in range(2 * MOST_TRIES):
        failing.failed(f"call {number}", "u")
    assert not failing.is_undoable("u"), "nothing was done in between"
    for number in range(MOST_TRIES):
        failing.worked("a")
        assert not failing.is_undoable("t")
        failing.failed(f"another call {number}", "t")
    assert failing.is_undoable("t") and not failing.is_undoable("u")
