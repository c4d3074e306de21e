"""Options are weighed as the model would weigh them one by one, whatever else runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edge.engine import lane
from edge.engine.engine import Completion, Engine, Request, Weights
from edge.engine.llama import Context, Fed, Model, Rows
from edge.engine.scoring import Scoring, probabilities
from gx.core.errors import GxError
from gx.core.message import Failure, Message, Sampling

OPTIONS = ("billing", "bug", "how-to", "an account that has a longer name")


def request(text: str = "Ticket", model: str = "tiny", **fields: Any) -> Request:
    return Request(model=model, messages=(Message(role="user", content=text),), **fields)


def by_hand(path: str, prompt: str, option: str) -> float:
    """The log-likelihood of `option`, computed by itself."""
    model = Model("m", path)
    context = Context(model, slots=1, slot_tokens=512, threads=1)
    whole, beginning = model.vocab.tokenize(prompt + option), len(model.vocab.tokenize(prompt))
    rows = context.decode([Fed(0, 0, whole, "all")]).astype(np.float64)
    logs = rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)
    total = sum(float(logs[at - 1, whole[at]]) for at in range(beginning, len(whole)))
    context.close()
    model.close()
    return total


def test_an_option_weighs_what_its_tokens_weigh(engine: Engine, tiny: str) -> None:
    result = engine.submit(request(opening='{"category": "', options=OPTIONS)).result(60)
    assert isinstance(result, Weights)
    prompt = Model("m", tiny).render((Message(role="user", content="Ticket"),)) + '{"category": "'
    expected = [by_hand(tiny, prompt, option) for option in OPTIONS]
    assert np.allclose(result.log_likelihoods, expected, atol=1e-2)


def test_long_options_are_weighed_in_parts_that_memory_bears(
    tiny: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = tuple(f"{start}, and then on and on about it, as before, at some length" for start in ("a", "b", "c"))
    whole = engine.submit(request(options=options)).result(60)
    model = Model("m", tiny)
    monkeypatch.setattr(lane, "LOGITS_BYTES", 4 * 4 * model.vocab.n_tokens)
    rows: list[int] = []
    decode = Context.decode

    def told(self: Context, parts: Sequence[Fed]) -> Rows:
        rows.append(sum(len(part.tokens) for part in parts if part.wanted == "all"))
        return decode(self, parts)

    monkeypatch.setattr(Context, "decode", told)
    narrow = Engine(threads=1, slots=2)
    narrow.register("tiny", tiny)
    futures = [narrow.submit(request(options=options)) for _ in range(2)]
    parts = [future.result(60) for future in futures]
    narrow.close()
    assert max(rows) == 4 and sum(rows) > 4 * len(options)
    assert isinstance(whole, Weights)
    for one in parts:
        assert isinstance(one, Weights) and np.allclose(one.log_likelihoods, whole.log_likelihoods, atol=1e-2)


def test_company_changes_no_weights(engine: Engine) -> None:
    alone = engine.submit(request("one", options=OPTIONS)).result(60)
    futures = [engine.submit(request(text, options=OPTIONS)) for text in ("one", "two", "three", "four", "five")]
    writing = engine.submit(request("six", sampling=Sampling(max_tokens=30)))
    results = [future.result(60) for future in futures]
    assert isinstance(alone, Weights) and isinstance(results[0], Weights)
    assert np.allclose(alone.log_likelihoods, results[0].log_likelihoods, atol=1e-2)
    assert len({result.log_likelihoods for result in results if isinstance(result, Weights)}) == 5
    assert isinstance(writing.result(60), Completion)


def test_a_real_model_prefers_what_makes_sense(engine: Engine) -> None:
    ask = request("Is the sky blue or is it square?", "smol", opening="The sky is", options=(" blue", " square"))
    result = engine.submit(ask).result(60)
    assert isinstance(result, Weights)
    assert probabilities(np.array(result.log_likelihoods))[0] > 0.9


def test_long_options_are_weighed_in_parts(engine: Engine, tiny: str) -> None:
    long = "word " * 150
    texts = [long + str(number) for number in range(8)]
    futures = [engine.submit(request(text, options=(long + "end", "short"))) for text in texts]
    results = [future.result(60) for future in futures]
    prompt = Model("m", tiny).render((Message(role="user", content=texts[7]),))
    assert isinstance(results[7], Weights)
    assert results[7].log_likelihoods[0] == pytest.approx(by_hand(tiny, prompt, long + "end"), abs=0.5)


def test_what_does_not_fit_is_refused(engine: Engine) -> None:
    failure = engine.submit(request(options=("a", "word " * 600))).result(60)
    assert isinstance(failure, Failure) and failure.code == "context"


def rows(prompt: tuple[int, ...], decoded: list[int], n_vocab: int = 16) -> Any:
    """Logits of a made-up model after each of `decoded`, each a function of all that is before it."""
    after = [(*prompt, *decoded[: n + 1]) for n in range(len(decoded))] if decoded else [prompt]
    return np.array([np.random.default_rng(list(place)).normal(size=n_vocab) for place in after], np.float32)


def driven(scoring: Scoring) -> list[list[int]]:
    """Drive a choice to its end; what it wanted decoded."""
    prompt, wanted = tuple(scoring.prompt.tolist()), list[list[int]]()
    decoded = scoring.advance(rows(prompt, []))
    while scoring.finish is None:
        wanted.append(decoded)
        decoded = scoring.advance(rows(prompt, decoded))
    return wanted


def test_what_options_begin_with_is_decoded_once() -> None:
    scoring = Scoring(np.array([1, 2], np.int32), [[7, 3, 4, 5], [7, 3, 4], [7, 3, 6], [7, 8], [7, 9, 9]])
    assert scoring.prompt.tolist() == [1, 2, 7]
    assert driven(scoring) == [[3, 4], [9]]
    logs = {}
    for place in [(1, 2, 7), (1, 2, 7, 3), (1, 2, 7, 3, 4), (1, 2, 7, 9)]:
        row = rows(place, [])[0].astype(np.float64)
        logs[place] = row - np.logaddexp.reduce(row)
    first, second, third, fourth = logs.values()
    expected = [first[3] + second[4] + third[5], first[3] + second[4], first[3] + second[6], first[8], first[9]]
    expected[4] += fourth[9]
    assert scoring.log_likelihoods == pytest.approx(expected, abs=1e-5)


def test_options_that_differ_in_their_first_token_need_no_decode_but_the_prompts() -> None:
    scoring = Scoring(np.array([1], np.int32), [[5, 2], [5, 3], [5, 4]])
    assert driven(scoring) == [] and scoring.prompt.tolist() == [1, 5]


def test_logits_that_are_no_numbers_are_the_models_fault() -> None:
    scoring = Scoring(np.array([1], np.int32), [[5], [6]])
    with pytest.raises(GxError, match="aren't numbers") as caught:
        scoring.advance(np.full((1, 16), np.nan, np.float32))
    assert caught.value.code == "model"


def test_a_choice_of_nothing_is_refused() -> None:
    with pytest.raises(GxError, match="at least one option"):
        Scoring(np.array([1], np.int32), [])


def test_a_baseline_takes_away_what_the_model_likes_anyway() -> None:
    weights, baseline = np.log([0.6, 0.4]), np.log([0.9, 0.1])
    assert probabilities(weights).tolist() == pytest.approx([0.6, 0.4])
    assert probabilities(weights, baseline).tolist() == pytest.approx([1 / 7, 6 / 7])
