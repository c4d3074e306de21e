"""Parts of a record and bare lines: what jq makes of the same, and nothing that raises."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gx.cli.selecting import bare, bare_row, path_of, selected
from gx.core.errors import UsageError

RECORD = {"id": "r1", "output": {"a": {"b": [1, {"c": "x"}]}, "text": "two\nlines"}, "input": {"text": "t"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["a.b.1.c"], "x"),
        (["a.b.0"], 1),
        ([".id"], "r1"),
        ([".input.text"], "t"),
        (["a.b.7"], None),
        (["nothing.of.it"], None),
        (["text.more"], None),
        ([".id", "a.b.0"], {".id": "r1", "a.b.0": 1}),
        ([], RECORD["output"]),
    ],
)
def test_a_dotted_path_finds_its_part_or_null(paths: list[str], found: Any) -> None:
    assert selected(RECORD, [path_of(path) for path in paths]) == found


@pytest.mark.parametrize("text", ["", ".", "a..b", "a.", ".a."])
def test_a_path_with_an_empty_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a dotted path"):
        path_of(text)


@given(JSON, st.text(alphabet="ab.01", max_size=5))
def test_any_path_over_any_output_ends_in_a_value(output: Any, text: str) -> None:
    try:
        path = path_of(text)
    except UsageError:
        return
    assert selected({"output": output}, [path]) is None or output is not None


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq isn't installed")
@pytest.mark.parametrize("value", ["plain", "two\nlines", 'quoted "x"', 1, 2.5, True, None, [1, "a"], {"é": "ü"}])
def test_a_bare_line_is_that_of_jq(value: Any) -> None:
    asked = subprocess.run(["jq", "-rc", "."], input=json.dumps(value).encode(), capture_output=True, check=True)
    assert bare(value) + "\n" == asked.stdout.decode()


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq isn't installed")
def test_several_values_are_those_of_tsv_in_jq() -> None:
    values = ["a\tb", "c\nd", "e\\f", None, 1, True]
    asked = subprocess.run(["jq", "-r", "@tsv"], input=json.dumps(values).encode(), capture_output=True, check=True)
    assert bare_row(values) + "\n" == asked.stdout.decode()


def test_a_place_that_no_list_has_is_nothing_however_long_its_number() -> None:
    assert selected({"output": [1]}, [path_of("9" * 5000)]) is None
