"""What the engine promises: right tokens, whole documents, true figures, and an end to everything."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from edge.engine.engine import Completion, Engine, Request
from gx.core.errors import BenchError, ModelError
from gx.core.message import Failure, Message, Sampling
from tests.tiny_model import write_tiny_model

# llguidance asks llama_cpp for each token's attributes by an older name.
pytestmark = pytest.mark.filterwarnings("ignore:llama_token_get_attr")

TICKET: dict[str, Any] = {
    "type": "object",
    "required": ["category", "urgency", "summary"],
    "additionalProperties": False,
    "properties": {
        "category": {"enum": ["billing", "bug", "how-to"]},
        "urgency": {"type": "integer", "minimum": 0, "maximum": 9},
        "summary": {"type": "string", "maxLength": 20},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2},
    },
}


@pytest.fixture(scope="module")
def engine(tiny: str, packaged: str) -> Iterator[Engine]:
    engine = Engine(threads=1)
    engine.register("tiny", tiny)
    engine.register("smol", packaged, 2048)
    yield engine
    engine.close()


def request(text: str, *, model: str = "tiny", schema: dict[str, Any] | None = None, **settings: Any) -> Request:
    timeout_s = settings.pop("timeout_s", None)
    return Request(
        model=model,
        messages=(Message(role="user", content=text),),
        sampling=Sampling(**{"max_tokens": 40, **settings}),
        output_schema=schema,
        timeout_s=timeout_s,
    )


def write(engine: Engine, text: str, **settings: Any) -> Completion:
    result = engine.submit(request(text, **settings)).result(60)
    assert isinstance(result, Completion), result
    return result


def fail(engine: Engine, text: str, **settings: Any) -> Failure:
    result = engine.submit(request(text, **settings)).result(60)
    assert isinstance(result, Failure), result
    return result


def test_greedy_text_is_that_of_llama_cpp(engine: Engine, packaged: str) -> None:
    from llama_cpp import Llama

    prompt = "Name three colours and say where each one is found in nature."
    # Attention is computed another way without flash attention, and near ties fall differently.
    llama = Llama(packaged, n_ctx=2048, n_threads=1, n_threads_batch=1, flash_attn=True, verbose=False)
    chat: Any = [{"role": "user", "content": prompt}]
    theirs: Any = llama.create_chat_completion(chat, temperature=0, max_tokens=40, repeat_penalty=1.0)
    ours = write(engine, prompt, model="smol")
    assert ours.text == theirs["choices"][0]["message"]["content"]
    assert ours.usage.tokens_in == theirs["usage"]["prompt_tokens"]
    assert ours.usage.tokens_out == 40 and ours.finish == "length"


def test_an_end_token_ends_the_answer(engine: Engine) -> None:
    result = write(engine, "Answer with one word: what is the capital of France?", model="smol", max_tokens=200)
    assert result.finish == "stop" and "Paris" in result.text and result.usage.tokens_out < 60


@pytest.mark.parametrize("seed", range(6))
def test_output_with_a_schema_always_fits_it(engine: Engine, seed: int) -> None:
    settings = {"temperature": 1.0 if seed else 0.0, "seed": seed, "schema": TICKET, "max_tokens": 300}
    result = write(engine, f"ticket {seed}", **settings)
    jsonschema.validate(msgspec.json.decode(result.text), TICKET)
    assert result.finish == "stop"


def test_a_real_model_fills_a_schema_compactly(engine: Engine) -> None:
    result = write(engine, "I was charged twice for my plan.", model="smol", schema=TICKET, max_tokens=120)
    jsonschema.validate(msgspec.json.decode(result.text), TICKET)
    assert result.text.startswith('{"category": "') and "\n" not in result.text


def test_what_a_schema_leaves_no_choice_about_is_never_decoded(engine: Engine) -> None:
    result = write(engine, "Hi", schema={"const": {"a": [1, 2, 3]}})
    assert msgspec.json.decode(result.text) == {"a": [1, 2, 3]} and result.usage.decode_ms == 0


def test_a_document_that_is_cut_short_is_a_failure_with_its_figures(engine: Engine) -> None:
    failure = fail(engine, "Hi", schema=TICKET, max_tokens=7)
    assert (failure.code, failure.retryable, failure.usage.tokens_out) == ("truncated", False, 7)
    assert "after 7 tokens (max_tokens 7)" in failure.message and "raise max_tokens" in failure.message
    assert failure.detail.startswith("it ended with: {")


def test_a_bare_number_that_could_go_on_is_cut_short_too(engine: Engine) -> None:
    schema = {"type": "integer", "minimum": 10, "maximum": 99_999}
    assert fail(engine, "Hi", schema=schema, max_tokens=2).code == "truncated"
    assert 10 <= int(write(engine, "Hi", schema=schema).text) <= 99_999


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"properties": {"a": {"type": "array", "uniqueItems": True}}}, '"uniqueItems" (at /properties/a/uniqueItems)'),
        ({"properties": {"not": {"type": "string", "not": {"const": "x"}}}}, '"not" (at /properties/not/not)'),
        ({"type": "objekt"}, "Invalid type: objekt"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"type": "string", "minLength": 5, "maxLength": 3}, "minLength (5) is greater than maxLength (3)"),
    ],
)
def test_a_schema_that_cannot_be_used_names_its_keyword(engine: Engine, schema: dict[str, Any], told: str) -> None:
    failure = fail(engine, "Hi", schema=schema)
    assert (failure.code, failure.retryable) == ("schema", False)
    assert told in failure.message


def test_stop_strings_end_the_text_before_them(engine: Engine) -> None:
    whole = write(engine, "Tell me a story about a fox.", model="smol").text
    stop = whole[9:14]  # in the middle of words, so across the borders of tokens
    result = write(engine, "Tell me a story about a fox.", model="smol", stop=(stop,))
    assert result.finish == "stop" and result.text == whole[: whole.index(stop)]


def test_previews_join_up_to_the_text(engine: Engine) -> None:
    told: list[tuple[str, int]] = []
    ask = request("Say something.", model="smol", stop=("\n\n",))
    result = engine.submit(ask, on_text=lambda text, n: told.append((text, n))).result(60)
    assert isinstance(result, Completion)
    assert "".join(text for text, _ in told) == result.text
    assert [n for _, n in told] == sorted(n for _, n in told)


def test_who_listens_hears_first_that_it_begins_with_what_is_certain_by_then(engine: Engine) -> None:
    kind = {"kind": {"enum": ["bug", "wish"]}}
    chosen = {"type": "object", "required": ["kind"], "properties": kind, "additionalProperties": False}
    for schema, first in (({"const": {"kind": "bug"}}, '{"kind":'), (chosen, '{"kind":'), (None, "")):
        told: list[tuple[str, int]] = []
        asked = request("Sort it.", schema=schema)
        result = engine.submit(asked, on_text=lambda text, n: told.append((text, n))).result(60)  # noqa: B023
        assert isinstance(result, Completion)
        assert "".join(text for text, _ in told) == result.text
        assert told[0][0].startswith(first) and bool(told[0][0]) is bool(first)


def test_a_prompt_that_does_not_fit_is_refused_with_its_figures(engine: Engine) -> None:
    failure = fail(engine, "word " * 600, max_tokens=100)
    assert (failure.code, failure.retryable) == ("context", False)
    figures = f"{failure.usage.tokens_in} prompt tokens and max_tokens 100 are more than the context of 512"
    assert figures in failure.message and failure.usage.tokens_in > 600


def test_an_answer_is_shortened_to_what_the_context_has_left(engine: Engine) -> None:
    result = write(engine, "word " * 440, max_tokens=4000)
    assert result.usage.tokens_in + result.usage.tokens_out == 512 and result.finish == "length"
    failure = fail(engine, "word " * 460, max_tokens=4000, schema={"type": "string", "minLength": 900})
    assert failure.code == "truncated" and "all that the context has left" in failure.message


def test_a_reused_prefix_changes_no_token(tiny: str, engine: Engine) -> None:
    shared = "You are given a ticket. " * 12
    write(engine, shared + "The first one.")
    warm = write(engine, shared + "The second one.")
    assert 60 < warm.usage.tokens_cached < warm.usage.tokens_in
    cold_engine = Engine(threads=1)
    cold_engine.register("tiny", tiny)
    cold = write(cold_engine, shared + "The second one.")
    cold_engine.close()
    assert cold.usage.tokens_cached == 0
    assert (cold.text, cold.usage.tokens_in, cold.usage.tokens_out) == (
        warm.text,
        warm.usage.tokens_in,
        warm.usage.tokens_out,
    )


def test_the_same_seed_writes_the_same_text(engine: Engine) -> None:
    one = write(engine, "Hi", temperature=1.0, seed=1)
    assert write(engine, "Hi", temperature=1.0, seed=1).text == one.text
    assert write(engine, "Hi", temperature=1.0, seed=2).text != one.text


def test_a_running_request_is_cancelled_between_two_tokens(engine: Engine) -> None:
    cancelled = threading.Event()
    ask = request("Go on for ever.", max_tokens=450)
    result = engine.submit(ask, on_text=lambda _, n: cancelled.set() if n == 5 else None, cancelled=cancelled).result(
        60
    )
    assert isinstance(result, Failure)
    assert (result.code, result.usage.tokens_out) == ("cancelled", 5)
    assert write(engine, "And the next one works.").usage.tokens_out


def test_a_queued_request_is_cancelled_while_another_runs(engine: Engine) -> None:
    waiting, ended = threading.Event(), threading.Event()
    queued: list[Any] = []

    def on_text(_: str, n: int) -> None:
        if n == 1:
            queued.append(engine.submit(request("queued"), cancelled=waiting))
            waiting.set()
        if n == 3 and queued[0].done():
            ended.set()

    write_result = engine.submit(request("running"), on_text=on_text).result(60)
    assert isinstance(write_result, Completion)
    assert ended.is_set() and queued[0].result(1).code == "cancelled"


def test_a_turn_that_runs_too_long_times_out(tiny: str) -> None:
    now_s = [0.0]
    engine = Engine(threads=1, clock=lambda: now_s[0])
    engine.register("tiny", tiny)

    def on_text(_: str, n: int) -> None:
        now_s[0] = float(n)

    result = engine.submit(request("Hi", max_tokens=400, timeout_s=10.0), on_text=on_text).result(60)
    engine.close()
    assert isinstance(result, Failure)
    assert (result.code, result.retryable, result.usage.tokens_out) == ("timeout", True, 10)
    assert "10 s" in result.message and "10 tokens of the answer" in result.message


def test_no_messages_is_a_failure(engine: Engine) -> None:
    result = engine.submit(Request(model="tiny", messages=())).result(60)
    assert isinstance(result, Failure) and result.code == "empty"


def test_an_unknown_model_is_a_failure(engine: Engine) -> None:
    failure = fail(engine, "Hi", model="f00")
    assert (failure.code, failure.retryable) == ("model", False) and "f00" in failure.message


def test_prompts_are_counted_in_the_models_template(engine: Engine) -> None:
    chat = (Message(role="user", content="How long is this?"),)
    (counted,) = engine.count("tiny", [chat])
    assert counted == write(engine, "How long is this?").usage.tokens_in


def test_models_stay_loaded_and_each_answers_as_itself(tmp_path: Path) -> None:
    engine = Engine(threads=1, context_tokens=256)
    for name in "abc":
        engine.register(name, str(write_tiny_model(tmp_path / name, seed=ord(name))))
        assert engine.describe(name).context_tokens == 256
    assert engine._shelf.digests() == ["a", "b", "c"]
    texts = {name: write(engine, "Hi", model=name).text for name in "abca"}
    assert len(set(texts.values())) == 3
    engine.register("a", "/nowhere.gguf")
    with pytest.raises(ModelError, match="nowhere"):
        engine.describe("a")
    engine.close()


def test_a_closed_engine_takes_nothing_and_has_answered_everything(tiny: str) -> None:
    engine = Engine(threads=1)
    engine.register("tiny", tiny)
    futures = [engine.submit(request("Hi", max_tokens=400)) for _ in range(3)]
    engine.close()
    assert {getattr(f.result(1), "code", "done") for f in futures} <= {"cancelled", "done"}
    with pytest.raises(BenchError, match="closed"):
        engine.submit(request("Hi"))
