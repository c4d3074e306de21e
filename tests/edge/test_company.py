"""A request's random numbers come from its seed alone, and so do its tokens, as far as the logits are the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from edge.engine.engine import Completion, Engine, Request
from gx.core.message import Message, Sampling

pytestmark = pytest.mark.filterwarnings("ignore:llama_token_get_attr")

SCHEMA = {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 8, "maxItems": 8}
OTHERS = ("Sing.", "Where does the long road go, and who built it?", "Count to a hundred by threes, please. " * 4)


@pytest.fixture(scope="module")
def alone(tiny: str) -> Iterator[Engine]:
    """An engine that never runs more than one request."""
    engine = Engine(threads=1, slots=1)
    engine.register("tiny", tiny)
    yield engine
    engine.close()


def request(text: str, **fields: Any) -> Request:
    sampling = Sampling(**{"temperature": 0.8, "top_k": 40, "seed": 11, "max_tokens": 16, "logprobs": 0, **fields})
    return Request(model="tiny", messages=(Message(role="user", content=text),), sampling=sampling)


def tokens(result: object) -> list[int]:
    assert isinstance(result, Completion), result
    return [one.token for one in result.logprobs]


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("settings", [{}, {"top_p": 0.9, "min_p": 0.05}, {"temperature": 0.0}])
def test_a_request_draws_the_same_tokens_in_any_company(
    engine: Engine, alone: Engine, place: int, settings: dict[str, Any]
) -> None:
    ask = request("Tell me a story about a fox.", **settings)
    company = [request(text, seed=seed, **settings) for seed, text in enumerate(OTHERS)]
    company.insert(place, ask)
    together = [future.result(60) for future in [engine.submit(one) for one in company]]
    assert tokens(together[place]) == tokens(alone.submit(ask).result(60))


def test_twins_draw_the_same_side_by_side(engine: Engine) -> None:
    ask = request("Tell me a story about a fox.")
    twins = [future.result(60) for future in [engine.submit(ask) for _ in range(4)]]
    assert len({tuple(tokens(twin)) for twin in twins}) == 1
    assert tokens(engine.submit(request("Tell me a story about a fox.", seed=12)).result(60)) != tokens(twins[0])


def test_an_answer_of_a_shape_is_the_same_in_company(engine: Engine, alone: Engine) -> None:
    def shaped(text: str, seed: int) -> Request:
        sampling = Sampling(temperature=1.0, seed=seed, max_tokens=200, logprobs=0)
        return Request(
            model="tiny", messages=(Message(role="user", content=text),), sampling=sampling, output_schema=SCHEMA
        )

    asked = [shaped(text, seed) for seed, text in enumerate(("Colours?", *OTHERS))]
    together = [future.result(60) for future in [engine.submit(one) for one in asked]]
    assert [tokens(one) for one in together] == [tokens(alone.submit(one).result(60)) for one in asked]
