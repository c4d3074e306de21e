"""`gx eval`: the figures hold for any labels, and the command gives them for a real run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gx.cli.evaluate import in_order, read_labels, schema_of
from gx.core.errors import InputError
from gx.core.ids import canonical
from gx.flow.parse import plan_recipe
from gx.run.evaluate import Evaluation, Prediction, compare, enumerations, equal
from tests.nodes import LINGERS_S

CLASSES = ["bug", "billing", "other"]
SCHEMA = {"type": "object", "properties": {"kind": {"enum": CLASSES}, "n": {"type": "integer"}}}
values = st.sampled_from([*CLASSES, None, "unheard of"])
rows = st.dictionaries(st.integers(0, 30).map(str), st.tuples(values, values, st.booleans()), min_size=1)


def of(pairs: dict[str, tuple[Any, Any, bool]]) -> tuple[list[Prediction], dict[str, dict[str, Any]]]:
    predictions = [
        Prediction(id=i, error="crashed: x") if failed else Prediction(id=i, output={"kind": out})
        for i, (_, out, failed) in pairs.items()
    ]
    return predictions, {i: {"id": i, "kind": label} for i, (label, _, _) in pairs.items()}


@given(rows)
def test_the_confusion_table_holds_every_row_once_and_the_right_ones_on_its_diagonal(pairs: Any) -> None:
    made = compare(*of(pairs), schema=SCHEMA)
    (field,) = made.fields
    assert sum(n for row in field.confusion.values() for n in row.values()) == field.rows == made.rows == len(pairs)
    assert sum(row.get(name, 0) for name, row in field.confusion.items()) == field.correct == made.exact
    assert sum(score.support for score in field.values) == field.rows
    assert field.accuracy == made.accuracy == field.correct / field.rows


@given(rows)
def test_scores_are_what_counting_by_hand_gives(pairs: Any) -> None:
    (field,) = compare(*of(pairs), schema=SCHEMA).fields
    for score in field.values:
        if score.value == "(none)":
            continue
        hits = sum(label == out == score.value and not failed for label, out, failed in pairs.values())
        labelled = sum(label == score.value for label, _, _ in pairs.values())
        given_ = sum(out == score.value and not failed for _, out, failed in pairs.values())
        assert score.recall == (hits / labelled if labelled else None)
        assert score.precision == (hits / given_ if given_ else None)
        if score.precision and score.recall:
            harmonic = 2 / (1 / score.precision + 1 / score.recall)
            assert score.f1 == pytest.approx(harmonic)


@given(rows, st.randoms())
def test_the_order_of_results_changes_no_figure(pairs: Any, random: Any) -> None:
    predictions, labels = of(pairs)
    shuffled = list(predictions)
    random.shuffle(shuffled)
    assert compare(shuffled, labels, schema=SCHEMA).fields == compare(predictions, labels, schema=SCHEMA).fields


@given(rows)
def test_results_that_are_their_labels_are_all_right(pairs: Any) -> None:
    predictions, labels = of({i: (label, label, False) for i, (label, _, _) in pairs.items()})
    made = compare(predictions, labels, schema=SCHEMA)
    assert made.exact == made.rows and not made.wrong
    assert all(score.f1 in (None, 1.0) for score in made.fields[0].values)


@given(st.sets(st.integers(0, 20).map(str)), st.sets(st.integers(0, 20).map(str)))
def test_ids_are_counted_on_both_sides(results: set[str], labelled: set[str]) -> None:
    predictions = [Prediction(id=i, output={"kind": "bug"}) for i in sorted(results)]
    made = compare(predictions, {i: {"kind": "bug"} for i in sorted(labelled)}, schema=SCHEMA)
    assert made.rows == len(results & labelled)
    assert (made.unlabelled, made.unmatched) == (len(results - labelled), len(labelled - results))


@pytest.mark.parametrize(
    ("label", "output", "is_equal"),
    [
        (1, 1.0000001, True),
        (1, 1.001, False),
        (1_234_567, 1_234_568, False),
        (10**400, 1.5, False),
        ("3", 3, True),
        (10115, "10115", True),
        (".5", 0.5, True),
        ("TRUE", True, True),
        ("false", True, False),
        (1, True, False),
        (" a ", "a", True),
        ("A", "a", False),
        (None, "", True),
        ("", None, True),
        (None, "a", False),
        (None, 0, False),
        ('["a", "b"]', ["a", "b"], True),
        (["a"], ["a", "b"], False),
        ({"x": 1, "y": None}, {"x": 1}, True),
        ({"x": 1}, {"x": 2}, False),
        ("[" * 100_000, ["a"], False),
    ],
)
def test_what_is_equal(label: Any, output: Any, is_equal: bool) -> None:
    assert equal(label, output) is is_equal
    assert equal(output, label) is is_equal


def test_case_is_ignored_only_on_request() -> None:
    predictions, labels = [Prediction(id="1", output={"kind": "BUG"})], {"1": {"kind": "Bug"}}
    assert compare(predictions, labels, schema=SCHEMA).exact == 0
    made = compare(predictions, labels, schema=SCHEMA, ignore_case=True)
    assert made.exact == 1 and made.fields[0].confusion == {"bug": {"bug": 1}}


def test_a_field_is_compared_only_where_it_is_labelled() -> None:
    predictions = [Prediction(id=str(n), output={"kind": "bug", "n": n}) for n in range(2)]
    made = compare(predictions, {"0": {"kind": "bug", "n": 9}, "1": {"kind": "bug"}}, schema=SCHEMA)
    assert {f.field: (f.correct, f.rows) for f in made.fields} == {"kind": (2, 2), "n": (0, 1)}
    assert made.exact == 1
    assert made.wrong[0].fields == {"n": {"label": 9, "output": 0}}


def test_columns_that_no_output_has_are_named() -> None:
    made = compare([Prediction(id="0", output={"kind": "bug"})], {"0": {"kind": "bug", "text": "…"}}, schema=SCHEMA)
    assert made.exact == 1 and made.ignored_columns == ("text",)


@pytest.mark.parametrize("label", [{"label": "yes"}, {"output": "yes"}, {"answer": "yes"}, {"label": "yes", "x": 1}])
def test_a_text_output_has_one_label(label: dict[str, Any]) -> None:
    made = compare([Prediction(id="0", output=" yes\n")], {"0": {"id": "0"} | label})
    assert made.exact == made.rows == 1


def test_records_of_a_run_are_labels_too() -> None:
    label = {"id": "0", "index": 0, "status": "succeeded", "output": {"kind": "bug"}, "cached": False}
    made = compare([Prediction(id="0", output={"kind": "bug"})], {"0": label}, schema=SCHEMA)
    assert made.exact == 1 and made.ignored_columns == ()


def test_fields_stand_in_the_order_of_the_schema() -> None:
    made = compare([Prediction(id="0", output={"kind": "bug", "n": 1})], {"0": {"n": 1, "kind": "bug"}}, schema=SCHEMA)
    assert [f.field for f in made.fields] == ["kind", "n"]


def test_at_most_five_wrong_rows_are_shown() -> None:
    made: Evaluation = compare(*of({str(n): ("bug", "other", False) for n in range(9)}), schema=SCHEMA)
    assert len(made.wrong) == 5 and made.exact == 0


def test_enumerations_are_enums_and_truth_values() -> None:
    schema = {"properties": {"a": {"enum": [1, None]}, "b": {"type": "boolean"}, "c": {"type": "string"}}}
    assert enumerations(schema) == {"a": ["1", "(none)"], "b": ["true", "false"]}
    assert enumerations({"enum": ["x"]}) == {"output": ["x"]}


def test_labels_are_read_from_csv_and_jsonl(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("id,kind\n7,bug\nx,other\n")
    assert read_labels(str(tmp_path / "l.csv"), 1 << 20)["7"]["kind"] == "bug"
    (tmp_path / "l.jsonl").write_text('{"id": 7, "kind": "bug"}\n')
    assert list(read_labels(str(tmp_path / "l.jsonl"), 1 << 20)) == ["7"]


@pytest.mark.parametrize("text", ['{"kind": "bug"}\n', '{"id": 1, \n', "\n"])
def test_labels_that_are_none_are_refused_with_their_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "l.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"l\.jsonl"):
        read_labels(str(tmp_path / "l.jsonl"), 1 << 20)


RECIPE = """\
version: 1
name: kinds
models: {small: smollm2}
agents:
  sorter:
    output: {type: object, required: [kind], properties: {kind: {enum: [bug, billing]}}}
    sampling: {max_tokens: 24}
steps:
  - {id: sort, for_each: inputs, agent: sorter, prompt: "{{ item.text }}"}
  - {id: again, for_each: sort, agent: sorter, prompt: "{{ item.kind }}"}
output: again
inputs: in.jsonl
"""


MATRIX = """\
version: 1
name: matrix
models: {m: ./model.gguf}
agents:
  a1: {model: m, output: {enum: [one]}}
  a2: {model: m, output: {enum: [two]}}
  ax: {model: m, output: {enum: [other]}}
steps:
  - {id: s, for_each: inputs, matrix: {n: [1, 2, x], m: [0.5]}, agent: "a{{ matrix.n }}", prompt: "{{ item.text }}"}
inputs: in.jsonl
"""


def test_each_combination_of_a_matrix_is_compared_by_the_schema_of_its_own_agent() -> None:
    plan = plan_recipe(MATRIX, {})
    schemas = [schema_of(plan, "s", {"n": n, "m": 0.5, "before": True}) for n in (1, 2, "x")]
    assert schemas == [{"enum": ["one"]}, {"enum": ["two"]}, {"enum": ["other"]}]


def test_combinations_of_a_matrix_of_any_types_stand_in_order() -> None:
    matrices: list[dict[str, Any]] = [{"n": n} for n in ("b", 10, "a", 2, 1.5, True)]
    ordered = in_order({canonical(matrix): [] for matrix in matrices})
    assert [matrix["n"] for matrix, _ in ordered] == [True, 1.5, 2, 10, "a", "b"]


def gx(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"GX_WORKSPACE": str(folder / ".gx"), "XDG_CACHE_HOME": str(folder / "cache")}
    environment["GX_NODE_LINGER_S"] = str(LINGERS_S)
    command = [sys.executable, "-P", "-m", "gx", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180)


def test_a_run_is_compared_and_a_second_evaluation_computes_nothing(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    texts = ["I was charged twice", "The app crashes", "My invoice is wrong"]
    lines = [json.dumps({"id": f"t{n}", "text": text}) for n, text in enumerate(texts)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    (tmp_path / "labels.csv").write_text("id,kind,who\nt0,billing,me\nt1,bug,me\nt9,bug,me\n")
    first = gx(tmp_path, "eval", "recipe.yaml", "--labels", "labels.csv", "--step", "sort")
    assert first.returncode == 0, first.stderr
    made = json.loads(first.stdout)
    assert (made["rows"], made["unlabelled_ids"], made["unmatched_ids"]) == (2, ["t2"], ["t9"])
    assert made["ignored_columns"] == ["who"] and made["step"] == "sort"
    assert sum(n for row in made["fields"][0]["confusion"].values() for n in row.values()) == 2
    second = gx(tmp_path, "eval", "recipe.yaml", "--labels", "labels.csv", "--step", "sort", "--plain")
    assert second.returncode == 0, second.stderr
    assert "from the log" in second.stderr and "kind, labels in rows" in second.stdout
    other = gx(tmp_path, "eval", "recipe.yaml", "--labels", "labels.csv")
    assert other.returncode == 0 and json.loads(other.stdout)["step"] == "again"
    wrong = gx(tmp_path, "eval", "recipe.yaml", "--labels", "labels.csv", "--step", "sorted")
    assert wrong.returncode == 2 and "did you mean `sort`" in wrong.stderr
