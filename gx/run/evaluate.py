"""How good results are, against labels: a pure comparison, from records and labels to figures.

It knows values, not runs or files. What counts as equal: numbers within 1e-6, text after its outer blanks are taken
off, and null, an empty text and a missing field are all nothing. Where only one of the two is text, as a label from a
CSV file is, it is read as what the other one is: a number, a truth value, a list.

A result that failed is compared too, and wrong in every field: leaving it out would flatter the recipe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from gx.core.message import Value

TOLERANCE = 1e-6
TEXT_FIELDS = ("label", "output")
"""The columns that may label an output that is no object."""
NOTHING, FAILED = "(none)", "(failed)"
"""How a missing value and a failed result stand in a confusion table."""
MAX_WRONG, MAX_IDS = 5, 5


class Prediction(Value, frozen=True, kw_only=True):
    """A result of the step: its row's id, and its output or why it has none."""

    id: str
    output: Any = None
    error: str | None = None


class ValueScore(Value, frozen=True, kw_only=True):
    """One value of an enum field. `None` where nothing was of this value, so that there is nothing to divide by."""

    value: str
    support: int
    precision: float | None
    recall: float | None
    f1: float | None


class FieldScore(Value, frozen=True, kw_only=True):
    """One labelled field over its `rows`. `confusion` is label → output → rows, for fields with an enum."""

    field: str
    rows: int
    correct: int
    accuracy: float
    values: tuple[ValueScore, ...] = ()
    macro_f1: float | None = None
    confusion: dict[str, dict[str, int]] = {}


class Wrong(Value, frozen=True, kw_only=True):
    """A row that is not what its label says: the fields that differ, each with its `label` and `output`."""

    id: str
    fields: dict[str, dict[str, Any]]
    error: str | None = None


class Evaluation(Value, frozen=True, kw_only=True):
    """The whole comparison. `exact` rows are right in all of their labelled fields.

    `unlabelled` results have no label, `unmatched` labels no result; the first ids of each stand beside the counts.
    """

    rows: int
    exact: int
    accuracy: float | None
    failed: int
    unlabelled: int
    unlabelled_ids: tuple[str, ...]
    unmatched: int
    unmatched_ids: tuple[str, ...]
    ignored_columns: tuple[str, ...]
    fields: tuple[FieldScore, ...]
    wrong: tuple[Wrong, ...]


def compare(
    predictions: Sequence[Prediction],
    labels: Mapping[str, Mapping[str, Any]],
    *,
    schema: Mapping[str, Any] | None = None,
    ignore_case: bool = False,
) -> Evaluation:
    """The figures of `predictions` against `labels` by id. `schema` is the agent's output schema; `None` is text.

    A field is compared in the rows whose label holds it. Columns that no output can have are ignored, and named.
    """
    is_object = _is_object(predictions, schema)
    wanted = {row_id: _fields(label, is_object=is_object) for row_id, label in labels.items()}
    columns = list(dict.fromkeys(name for label in wanted.values() for name in label))
    known = _known_fields(predictions, schema) if is_object else ["output"]
    fields = [name for name in known if name in columns]
    pairs = [(p, wanted[p.id]) for p in predictions if p.id in wanted]
    scored: dict[str, list[_Pair]] = {name: [] for name in fields}
    wrong: list[Wrong] = []
    exact = 0
    for prediction, label in pairs:
        differing = {}
        for name in fields:
            if name not in label:
                continue
            output = _output(prediction, name, is_object=is_object)
            is_right = prediction.error is None and equal(label[name], output, ignore_case=ignore_case)
            scored[name].append(_Pair(label[name], output, is_right, prediction.error is not None))
            if not is_right:
                differing[name] = {"label": label[name], "output": output}
        exact += not differing
        if differing and len(wrong) < MAX_WRONG:
            wrong.append(Wrong(id=prediction.id, fields=differing, error=prediction.error))
    unlabelled = [p.id for p in predictions if p.id not in wanted]
    found = {p.id for p in predictions}
    unmatched = [row_id for row_id in wanted if row_id not in found]
    enums = enumerations(schema)
    return Evaluation(
        rows=len(pairs),
        exact=exact,
        accuracy=exact / len(pairs) if pairs else None,
        failed=sum(p.error is not None for p, _ in pairs),
        unlabelled=len(unlabelled),
        unlabelled_ids=tuple(unlabelled[:MAX_IDS]),
        unmatched=len(unmatched),
        unmatched_ids=tuple(unmatched[:MAX_IDS]),
        ignored_columns=tuple(name for name in columns if name not in known),
        fields=tuple(_score(name, scored[name], enums.get(name), ignore_case) for name in fields if scored[name]),
        wrong=tuple(wrong),
    )


def equal(label: Any, output: Any, *, ignore_case: bool = False) -> bool:
    """Whether an output is what its label says."""
    if _is_nothing(label) or _is_nothing(output):
        return _is_nothing(label) and _is_nothing(output)
    if isinstance(label, str) != isinstance(output, str):
        label, output = _read_as(label, output), _read_as(output, label)
    if isinstance(label, bool) or isinstance(output, bool):
        return label is output
    if isinstance(label, int | float) and isinstance(output, int | float):
        return _is_near(label, output)
    if isinstance(label, str) and isinstance(output, str):
        return _key(label, ignore_case) == _key(output, ignore_case)
    if isinstance(label, list | tuple) and isinstance(output, list | tuple):
        pairs = zip(label, output, strict=False)
        return len(label) == len(output) and all(equal(a, b, ignore_case=ignore_case) for a, b in pairs)
    if isinstance(label, Mapping) and isinstance(output, Mapping):
        names = {*label, *output}
        return all(equal(label.get(name), output.get(name), ignore_case=ignore_case) for name in names)
    return False


def enumerations(schema: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """The values of each field that a schema lists: an enum's, or true and false. A bare enum is of `output`."""
    if schema is None:
        return {}
    parts = schema.get("properties")
    found = parts.items() if isinstance(parts, Mapping) else [("output", schema)]
    listed: dict[str, list[str]] = {}
    for name, part in found:
        if isinstance(part, Mapping) and isinstance(part.get("enum"), list | tuple):
            listed[name] = [_shown(value) for value in part["enum"]]
        elif isinstance(part, Mapping) and part.get("type") == "boolean":
            listed[name] = ["true", "false"]
    return listed


# ── fields ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _is_object(predictions: Iterable[Prediction], schema: Mapping[str, Any] | None) -> bool:
    if schema is not None:
        return schema.get("type") == "object" or "properties" in schema
    return any(isinstance(p.output, Mapping) for p in predictions)


def _known_fields(predictions: Iterable[Prediction], schema: Mapping[str, Any] | None) -> list[str]:
    """The schema's fields in its order, then what the outputs have besides."""
    seen = (name for p in predictions if isinstance(p.output, Mapping) for name in p.output)
    return list(dict.fromkeys([*((schema or {}).get("properties") or ()), *seen]))


def _fields(label: Mapping[str, Any], *, is_object: bool) -> dict[str, Any]:
    """The labelled fields of a row. A record of gx is a label too: then they are in its `output`."""
    rest = {name: value for name, value in label.items() if name != "id"}
    if is_object:
        inner = rest.get("output")
        return dict(inner) if isinstance(inner, Mapping) else rest
    for name in TEXT_FIELDS:
        if name in rest:
            return {"output": rest[name]}
    return {"output": next(iter(rest.values()))} if len(rest) == 1 else rest


def _output(prediction: Prediction, name: str, *, is_object: bool) -> Any:
    if not is_object:
        return prediction.output
    return prediction.output.get(name) if isinstance(prediction.output, Mapping) else None


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _is_near(one: float, other: float) -> bool:
    try:
        return one == other or abs(one - other) <= TOLERANCE
    except OverflowError:  # an integer beyond every float, beside a float
        return False


def _read_as(value: Any, other: Any) -> Any:
    """A text as the JSON that it can be, beside a value that is no text; else as it is."""
    if not isinstance(value, str) or isinstance(other, str):
        return value
    text = value.strip()
    try:
        return msgspec.json.decode(text.lower() if isinstance(other, bool) else text)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return float(text)  # ".5" or "+1", which JSON doesn't know
    except ValueError:
        return value


def _key(text: str, ignore_case: bool) -> str:
    return text.strip().casefold() if ignore_case else text.strip()


def _shown(value: Any) -> str:
    if _is_nothing(value):
        return NOTHING
    return value.strip() if isinstance(value, str) else msgspec.json.encode(value).decode()


# ── scores ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Pair(NamedTuple):
    label: Any
    output: Any
    is_right: bool
    is_failed: bool

    def shown(self) -> tuple[str, str]:
        """Its cell in the confusion table: on the diagonal exactly if it is right."""
        if self.is_right:
            return _shown(self.output), _shown(self.output)
        return _shown(_read_as(self.label, self.output)), FAILED if self.is_failed else _shown(self.output)


def _score(name: str, pairs: list[_Pair], listed: list[str] | None, ignore_case: bool) -> FieldScore:
    """The figures of one field; `listed` are its enum's values, `None` where it has none.

    Precision, recall and F1: https://en.wikipedia.org/wiki/Precision_and_recall; `macro_f1` is the plain mean of the F1
    of the values that labels have.
    """
    correct = sum(pair.is_right for pair in pairs)
    score = FieldScore(field=name, rows=len(pairs), correct=correct, accuracy=correct / len(pairs))
    if listed is None:
        return score
    shown = {_key(value, ignore_case): value for value in reversed(listed)}
    cells = Counter(tuple(shown.setdefault(_key(text, ignore_case), text) for text in pair.shown()) for pair in pairs)
    met = {text for cell in cells for text in cell}
    order = [*listed, *sorted(met.difference(listed))]
    values = tuple(_value_score(value, cells) for value in order if value != FAILED)
    f1s = [score.f1 or 0.0 for score in values if score.support]
    confusion = {row: {col: cells[row, col] for col in order if cells[row, col]} for row in order}
    return msgspec.structs.replace(
        score,
        values=values,
        macro_f1=sum(f1s) / len(f1s) if f1s else None,
        confusion={row: cols for row, cols in confusion.items() if cols},
    )


def _value_score(value: str, cells: Counter[tuple[str, ...]]) -> ValueScore:
    both = cells[value, value]
    support = sum(count for (label, _), count in cells.items() if label == value)
    given = sum(count for (_, output), count in cells.items() if output == value)
    return ValueScore(
        value=value,
        support=support,
        precision=both / given if given else None,
        recall=both / support if support else None,
        f1=2 * both / (support + given) if support + given else None,
    )
