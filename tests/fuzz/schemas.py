"""Random JSON Schemas through the engine: an answer fits its schema, or the schema is refused by keyword and place.

Every case is a schema, run on a tiny model whose words are chance, at temperature 0 or 1, with room that sometimes
isn't enough; some schemas are spoilt on purpose. What is allowed is a document that validates, a failure "truncated"
where the room ran out, and a failure "schema" that names a keyword and where it is. Cases follow from the seed and
their number alone.

`python -m tests.fuzz.schemas --cases 1000` prints what came out, and exits 1 if something was found. With
`--suite`, the draft2020-12 part of the public JSON Schema Test Suite (MIT; as the package jsonschema carries it in its
source) is run too: its schemas, and its instances, in our layout, are offered to the grammars: an invalid one must be
rejected, and of the valid ones the share that is accepted is told. `--suite DIR` takes it from a folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from decimal import Decimal, InvalidOperation, localcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema

from edge.engine.engine import Completion, Engine, Request
from edge.engine.llama import Model
from edge.engine.shapes import Grammars, JsonSchema
from edge.engine.shapes.schema import keywords, replaced
from gx.core.errors import GxError
from gx.core.message import Failure, Message, Sampling
from tests.bench.engine.build import source_of
from tests.tiny_model import write_tiny_model

CASE_S = 30
WAVE = 64
CONTEXT_TOKENS = 512
# Decimals, since in floats 20067836.17 is no multiple of 0.01.
MOST_DIGITS = 1000
_FORMAT_CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER
ROOM = (2, 30, 200, 400)
_NAMED = re.compile(r'"([^"]+)"(?:, "[^"]+")* \(at (/[^\n]*?)\)(?:: |, which )')
_NAMES = (
    "a",
    "name",
    "größe",
    "名前",
    "with space",
    'quo"te',
    "sl/ash~",
    "back\\slash",
    "",
    "$ref",
    "properties",
    "😀",
)
_WORDS = ("red", "green", "", "ünïcode", 'say "hi"', "a\\b", "line\nbreak", "😀", "null", "1")
_PATTERNS = (
    "^[a-z]{1,4}$", "^\\d{3}-\\d{2}$", "^(ab|cd)+$", "[A-Z]", "^x?y*z{2}$", "^[^a-c]{2}$", "^\\S{1,3}$", "^a.c$",
    "^[äöü]{2}$", "^\\w+@\\w+$", "^$", "a|^b", "^(?:[0-9]|[1-9][0-9])$",
)  # fmt: skip
_FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "ipv6", "email", "hostname", "duration", "uri")
_REFUSED: tuple[dict[str, Any], ...] = (
    {"not": {"const": 1}}, {"uniqueItems": True}, {"if": {"type": "null"}, "then": {}}, {"contains": {"type": "null"}},
    {"propertyNames": {"maxLength": 2}}, {"unevaluatedProperties": False}, {"dependentRequired": {"a": ["b"]}},
    {"type": "objekt"}, {"pattern": "("}, {"pattern": "(?=a)"}, {"format": "colour"}, {"minLength": -1},
    {"minItems": 3, "maxItems": 2, "type": "array"}, {"$ref": "#/$defs/nowhere"}, {"enum": []}, {"required": "a"},
    {"allOf": [{"type": "string"}, {"type": "integer"}]}, {"oneOf": [{"minimum": 0}, {"maximum": 9}]}, {"items": 5},
)  # fmt: skip

_SPOILT: tuple[Any, ...] = (
    None, True, False, -1, 1.5, 1e300, 10**30, float("nan"), "", "x", "#", "^(", "\ud800", [], [[]], [None], {},
    {"$ref": "#"},
)  # fmt: skip


class Found(Exception):
    """What must not happen, and did."""


class Case(NamedTuple):
    """A schema and how it is run."""

    name: str
    schema: dict[str, Any]
    max_tokens: int = 400
    temperature: float = 1.0
    seed: int = 0


# ── schemas ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def case_of(seed: int, number: int) -> Case:
    """The case of that number."""
    chance = random.Random(f"{seed}/{number}")
    schema = _Schemas(chance).document()
    while chance.random() < 0.1:
        places = [path for path, _ in keywords(schema)]
        schema = replaced(schema, chance.choice(places), chance.choice(_SPOILT)) if places else schema
    return Case(str(number), schema, chance.choice(ROOM), float(chance.random() < 0.6), number)


class _Schemas:
    """Makes schemas of bounded size; deep ones are rarer."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._defs = [f"d{index}" for index in range(chance.choice((0, 0, 1, 3)))] + ["tree~/ é"]

    def document(self) -> dict[str, Any]:
        """A whole schema, with its definitions."""
        chance, schema = self._chance, self.schema(3)
        schema["$defs"] = {name: self.schema(2) for name in self._defs}
        leaf, branch = self.schema(0), {"$ref": "#/$defs/tree~0~1%20%C3%A9"}
        fields = {"value": leaf, "next": {"anyOf": [{"type": "null"}, branch]}}
        if chance.random() < 0.03:  # a tree without leaves, which no document is
            fields["next"] = branch
        schema["$defs"]["tree~/ é"] = {
            "type": "object", "properties": fields, "required": ["value", "next"], "additionalProperties": False,
        }  # fmt: skip
        return schema

    def schema(self, depth: int) -> dict[str, Any]:
        """Any schema of at most that depth."""
        chance = self._chance
        if chance.random() < 0.02:
            return dict(chance.choice(_REFUSED))
        leaves = (self.string, self.string, self.number, self.whole, self.listed, self.plain)
        nodes = (self.object, self.object, self.object, self.array, self.array, self.union, self.both, self.ref)
        made: dict[str, Any] = chance.choice(nodes if depth > 0 and chance.random() < 0.75 else leaves)(depth)
        if chance.random() < 0.1:
            made |= {"title": "a title", "description": 'in "quotes"', "default": None, "examples": [1]}
        return made

    def string(self, depth: int) -> dict[str, Any]:
        chance, most = self._chance, self._chance.randrange(1, 9)
        made: dict[str, Any] = {"type": chance.choice(("string", "string", ["string", "null"]))}
        what = chance.random()
        if what < 0.3:
            made["pattern"] = chance.choice(_PATTERNS)
        elif what < 0.45:
            made["format"] = chance.choice(_FORMATS)
        if what < 0.2 or what >= 0.45:
            made["maxLength"] = most
        if what > 0.7:
            made["minLength"] = chance.randrange(most + 1)
        return made

    def number(self, depth: int) -> dict[str, Any]:
        chance, low = self._chance, self._chance.choice((-1e3, -2.5, 0, 0.1, 3, 99.99))
        made: dict[str, Any] = {"type": chance.choice(("number", ["number", "null"]))}
        if chance.random() < 0.8:
            made[chance.choice(("minimum", "exclusiveMinimum"))] = low
            made[chance.choice(("maximum", "exclusiveMaximum"))] = low + chance.choice((0.5, 1, 7.25, 1e4))
        if chance.random() < 0.3:
            made["multipleOf"] = chance.choice((0.01, 0.5, 3, 10))
        return made

    def whole(self, depth: int) -> dict[str, Any]:
        chance, low = self._chance, self._chance.choice((-12_345, -9, 0, 1, 98))
        made: dict[str, Any] = {"type": "integer"}
        if chance.random() < 0.9:
            made["minimum"] = low
            made["maximum"] = low + chance.choice((0, 1, 15, 1000))
        if chance.random() < 0.2:
            made["multipleOf"] = chance.choice((2, 5, 7))
        return made

    def listed(self, depth: int) -> dict[str, Any]:
        chance = self._chance
        values = [*_WORDS, 0, 1, -1, 2.5, 1e20, True, False, None, [], [1, "a"], {}, {"k": ["v"], "größe": None}]
        if chance.random() < 0.3:
            return {"const": chance.choice(values)}
        return {"enum": chance.sample(values, chance.randrange(1, 5))}

    def plain(self, depth: int) -> dict[str, Any]:
        return {"type": self._chance.choice(("boolean", "null", ["boolean", "null"]))}

    def object(self, depth: int) -> dict[str, Any]:
        chance = self._chance
        names = chance.sample(_NAMES, chance.randrange(5))
        made: dict[str, Any] = {"type": "object", "properties": {name: self.schema(depth - 1) for name in names}}
        made["required"] = [name for name in names if chance.random() < 0.6]
        what = chance.random()
        if what < 0.7:
            made["additionalProperties"] = False
        elif what < 0.85:
            made["additionalProperties"] = self.schema(0)
            made["maxProperties"] = len(names) + chance.randrange(3)
            if chance.random() < 0.7:
                made["required"] = names
        elif what < 0.95:
            made["patternProperties"] = {"^x[0-9]$": self.schema(0), "^y[a-z]{1,2}$": self.schema(0)}
            made["additionalProperties"] = False
            if chance.random() < 0.5:
                made |= {"required": names, "minProperties": len(names) + 2}
        return made

    def array(self, depth: int) -> dict[str, Any]:
        chance = self._chance
        made: dict[str, Any] = {"type": "array", "items": self.schema(depth - 1), "maxItems": chance.randrange(1, 4)}
        if chance.random() < 0.4:
            made["minItems"] = chance.randrange(made["maxItems"] + 1)
        if chance.random() < 0.3:
            made["prefixItems"] = [self.schema(0) for _ in range(chance.randrange(1, 3))]
            if chance.random() < 0.4:
                made["items"] = False
                made["maxItems"] = len(made["prefixItems"])
                made.pop("minItems", None)
        return made

    def union(self, depth: int) -> dict[str, Any]:
        chance = self._chance
        if chance.random() < 0.6:
            return {"anyOf": [self.schema(depth - 1) for _ in range(chance.randrange(1, 4))]}
        if chance.random() < 0.5:
            return {"oneOf": [self.string(0), self.whole(0), {"type": "null"}][: chance.randrange(1, 4)]}
        kinds = []
        for kind in ("cat", "dog")[: chance.randrange(1, 3)]:
            made = self.object(depth)
            made["properties"] = {"kind": {"const": kind}} | made["properties"]
            made["required"] = ["kind", *made["required"]]
            kinds.append(made)
        return {"oneOf": kinds}

    def both(self, depth: int) -> dict[str, Any]:
        chance = self._chance
        if chance.random() < 0.4:
            return {"allOf": [self.string(0) | {"type": "string"}, {"maxLength": 6}], "minLength": 1}
        if chance.random() < 0.4:
            return {"allOf": [self.whole(0), {"minimum": 3}], "type": ["integer", "null"]}
        parts = [self.object(depth - 1) for _ in range(2)]
        for part in parts:
            if chance.random() < 0.8:
                part.pop("additionalProperties", None)
        return {"allOf": parts}

    def ref(self, depth: int) -> dict[str, Any]:
        name = self._chance.choice(self._defs)
        return {"$ref": "#/$defs/" + ("tree~0~1%20%C3%A9" if name.startswith("tree") else name)}


# ── one case ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def request_of(case: Case) -> Request:
    """What the engine is asked."""
    return Request(
        model="tiny",
        messages=(Message(role="user", content=f"case {case.name}"),),
        sampling=Sampling(max_tokens=case.max_tokens, temperature=case.temperature, seed=case.seed),
        output_schema=case.schema,
    )


def word_of(case: Case, result: Completion | Failure) -> str:
    """What came of a case, in a word. :raises Found: if it isn't what was promised."""
    if isinstance(result, Completion):
        _claim(result.finish == "stop", f"a document that was cut: {result.text!r}")
        twice: list[str] = []

        def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            twice.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
            return dict(pairs)

        try:
            value = json.loads(result.text, object_pairs_hook=fields, parse_float=_exact)
        except ValueError as error:
            raise Found(f"no JSON: {error}: {result.text!r}") from None
        schema = json.loads(json.dumps(case.schema), parse_float=Decimal)
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError:
            return "is JSON, of a schema that isn't one"
        with localcontext(prec=MOST_DIGITS):
            validator = jsonschema.Draft202012Validator(schema, format_checker=_FORMAT_CHECKER)
            try:
                wrong = next(validator.iter_errors(value), None)
            except RecursionError:  # a part that refers to itself as one of its own options
                return "is JSON, of a schema that goes round in circles"
        _claim(wrong is None, f"it doesn't fit: {result.text!r}: {wrong.message if wrong else ''}")
        _claim(_is_compact(result.text), f"not compact: {result.text!r}")
        return "fits, with a name twice" if twice else "fits"
    _claim(not result.retryable, f"worth a retry: {result.message}")
    if result.code == "truncated":
        _claim(result.usage.tokens_out in (case.max_tokens, CONTEXT_TOKENS - result.usage.tokens_in), "cut too early")
        return "truncated"
    _claim(result.code == "schema", f"a failure {result.code!r}: {result.message}")
    return f"refused: {_check_named(result.message, case.schema)}"


def _exact(number: str) -> Decimal | float:
    """A number's value; one whose exponent is past all bounds, as a number without bounds may have, is infinite."""
    try:
        return Decimal(number)
    except InvalidOperation:
        return float(number)


def _is_compact(text: str) -> bool:
    """Whether there is a space after each comma and colon, and none elsewhere."""
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
    return re.sub(r"(?<=[,:]) ", "", outside) == re.sub(r"\s", "", outside) and not re.search(r"[,:](?! )", outside)


def _check_named(message: str, schema: Any) -> str:
    """The keyword that a refusal names, if the schema has it where the refusal says."""
    named = _NAMED.search(message)
    if named is None:
        raise Found(f"a refusal without keyword and place: {message}")
    for place in named[2].split(", /"):
        node = schema
        for step in place.lstrip("/").split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            try:
                node = node[int(name) if isinstance(node, list) else name]
            except (KeyError, IndexError, ValueError, TypeError):
                raise Found(f"a refusal with a place that isn't there, {place!r}: {message}") from None
    return named[1]


def _claim(is_kept: bool, otherwise: str) -> None:
    if not is_kept:
        raise Found(otherwise)


def _within(seconds: float, call: Callable[[], Future[Any]]) -> Future[Any]:
    """Call in a thread that may be left behind: what hangs in native code can't be interrupted."""
    done: list[Future[Any] | BaseException] = []

    def run() -> None:
        try:
            done.append(call())
        except BaseException as error:  # it is raised again
            done.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    _claim(bool(done), f"it compiled for longer than {seconds:g} s")
    if isinstance(done[0], BaseException):
        raise Found(f"{type(done[0]).__name__} came out: {done[0]}") from done[0]
    return done[0]


# ── all of it ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Outcome(NamedTuple):
    """How many cases came to what; what was found, as (case, text)."""

    counted: Counter[str]
    found: list[tuple[Case, str]]


def fuzz(model: str, cases: Iterator[Case], tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Run the cases on the model at that path, many at a time."""
    outcome = Outcome(Counter(), [])
    engine = Engine(threads=1, slots=16, context_tokens=CONTEXT_TOKENS)
    engine.register("tiny", model)
    try:
        while wave := list(itertools.islice(cases, WAVE)):
            _run(engine, wave, outcome)
            tell(f"{outcome.counted.total() + len(outcome.found):,} cases, {len(outcome.found)} findings")
    finally:
        engine.close()
    return outcome


def _run(engine: Engine, wave: list[Case], outcome: Outcome) -> None:
    """Cases side by side."""
    submitted: list[tuple[Case, Future[Any]]] = []
    for case in wave:
        try:
            submitted.append((case, _within(CASE_S, lambda case=case: engine.submit(request_of(case)))))  # type: ignore[misc]
        except Found as found:
            outcome.found.append((case, str(found)))
    for case, future in submitted:
        try:
            outcome.counted[word_of(case, future.result(CASE_S))] += 1
        except Found as found:
            outcome.found.append((case, str(found)))
        except FutureTimeout:
            outcome.found.append((case, f"it didn't end within {CASE_S} s"))


class Share(NamedTuple):
    """What the suite's instances came to: valid ones accepted, and those that weren't; invalid ones accepted."""

    accepted: int
    rejected: list[str]
    wrong: list[str]


def suite_cases(folder: Path) -> Iterator[tuple[Case, list[dict[str, Any]]]]:
    """The suite's schemas with their instances."""
    for path in sorted(folder.glob("*.json")):
        for group in json.loads(path.read_text()):
            if isinstance(group["schema"], dict):
                yield Case(f"{path.stem}: {group['description']}", group["schema"]), group["tests"]


def judge(model_path: str, folder: Path) -> Share:
    """Offer the suite's instances, in our layout, to the grammars of those schemas that can be used."""
    share = Share(0, [], [])
    model = Model("tiny", model_path)
    grammars = Grammars(model.vocab)
    for case, tests in suite_cases(folder):
        for test in tests:
            try:
                matcher = grammars.constraint(JsonSchema(schema=case.schema))._matcher
            except GxError:
                break
            text = json.dumps(test["data"], ensure_ascii=False)
            tokens = model.vocab.tokenize(text).tolist()
            is_accepted = matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()
            if is_accepted and test["valid"]:
                share = share._replace(accepted=share.accepted + 1)
            elif is_accepted or test["valid"]:
                (share.wrong if is_accepted else share.rejected).append(f"{case.name}: {text}")
    model.close()
    return share


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.schemas", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--suite", nargs="?", const="", metavar="DIR", help="the JSON Schema Test Suite, too")
    asked = parser.parse_args()
    print(f"seed {asked.seed}: {asked.cases:,} cases", flush=True)
    with tempfile.TemporaryDirectory(prefix="gx-fuzz-") as folder:
        model = str(write_tiny_model(Path(folder) / "tiny.gguf", context=CONTEXT_TOKENS))
        outcome = fuzz(model, (case_of(asked.seed, number) for number in range(asked.cases)), _tell)
        _print("generated", outcome)
        found = len(outcome.found)
        if asked.suite is not None:
            suite = Path(asked.suite) if asked.suite else _public_suite(Path(folder))
            outcome = fuzz(model, (case for case, _ in suite_cases(suite)), _tell)
            _print("the suite's schemas", outcome)
            share = judge(model, suite)
            valid = share.accepted + len(share.rejected)
            print(f"the suite's instances: {share.accepted} of {valid} valid ones accepted")
            for line in share.rejected:
                print(f"  valid, not accepted: {line}")
            for line in share.wrong:
                print(f"  INVALID, ACCEPTED: {line}")
            found += len(outcome.found) + len(share.wrong)
    if found:
        sys.exit(f"{found} findings; again with --seed {asked.seed}")


def _public_suite(folder: Path) -> Path:
    return source_of(f"jsonschema=={version('jsonschema')}", folder) / "json" / "tests" / "draft2020-12"


def _print(title: str, outcome: Outcome) -> None:
    print(f"{title}: {', '.join(f'{count:,} {word}' for word, count in outcome.counted.most_common())}")
    for case, text in outcome.found:
        print(f"\ncase {case.name}: {text}\n  {json.dumps(case.schema, ensure_ascii=False)}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
