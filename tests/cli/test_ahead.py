"""What is made ahead comes in its order, a few items early and no more, with its errors, and ends with its taker."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from gx.cli.ahead import ahead
from tests import nodes


def test_items_come_in_order_and_none_is_lost() -> None:
    assert list(ahead(range(100), 3)) == list(range(100))
    assert list(ahead([], 3)) == []


def test_a_few_items_are_made_early_and_no_more() -> None:
    made = list[int]()

    def items() -> Iterator[int]:
        for n in itertools.count():
            made.append(n)
            yield n

    taken = ahead(items(), 3)
    assert next(taken) == 0
    assert nodes.until(lambda: len(made) >= 5) and len(made) == 5  # one taken, three ready, one that waits
    taken.close()
    assert nodes.until(lambda: not [one for one in threading.enumerate() if one.name == "ahead"])


def test_an_error_comes_where_the_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    taken = ahead(items(), 3)
    assert next(taken) == 1
    with pytest.raises(ValueError, match="broken"):
        next(taken)
