"""A recipe becomes a value, or an error that points at what is wrong."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gx.core.errors import RecipeError, UsageError
from gx.core.recipe import Budget, Param, Recipe
from gx.core.terms import Terms
from gx.flow.parse import fingerprint_source, load_recipe, parse_recipe, resolve_params

TRIAGE = """\
version: 1
name: triage
params:
  product: {type: string, default: Acme Notes}
models:
  small: smollm2
agents:
  triager:
    model: small
    persona: You triage support tickets for {{ params.product }}.
    output:
      type: object
      required: [category, summary]
      properties:
        category: {enum: [billing, bug, other]}
        summary: {type: string, maxLength: 160}
  editor: {model: small, persona: You write short reports.}
steps:
  - id: triage
    for_each: inputs
    agent: triager
    prompt: "Ticket {{ item.id }}: {{ item.text }}"
    retry: {limit: 2, backoff: 1s}
    timeout: 2m
  - id: report
    agent: editor
    reduce: triage
    prompt: |
      Summarise:
      {% for t in items %}- {{ t.summary }}
      {% endfor %}
output: triage
deadline: 1h30m
budget: {tokens: 2_000_000}
"""


def changed(old: str, new: str) -> str:
    assert TRIAGE.count(old) >= 1, old
    return TRIAGE.replace(old, new, 1)


def refusal(text: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text)
    return caught.value


def small(step: str, *, extra: str = "", agent: str = "{}") -> str:
    head = f"version: 1\nname: n\nmodels: {{m: x}}\nagents:\n  a: {agent}\n"
    return f"{head}{extra}steps:\n  - {{id: s, agent: a, {step}}}\n"


def test_a_whole_recipe_becomes_its_value() -> None:
    recipe = parse_recipe(TRIAGE)
    assert recipe.output == "triage"
    assert recipe.deadline_s == 5400
    assert recipe.budget.tokens == 2_000_000
    assert recipe.params == {"product": Param(type="string", default="Acme Notes")}
    assert recipe.step("triage").retry.limit == 2
    assert recipe.step("triage").timeout_s == 120
    assert recipe.agents["triager"].output is not None
    assert list(recipe.agents["triager"].output["properties"]) == ["category", "summary"]


def test_the_sources_of_a_step_are_among_its_needs_and_inputs_are_not() -> None:
    recipe = parse_recipe(TRIAGE)
    assert recipe.step("triage").needs == ()
    assert recipe.step("report").needs == ("triage",)


def test_the_output_is_the_last_step_where_it_is_left_out() -> None:
    assert parse_recipe(changed("output: triage\n", "")).output == "report"


def test_logprobs_are_asked_for_in_the_sampling() -> None:
    recipe = parse_recipe(changed("  editor: {", "  editor: {sampling: {logprobs: 5}, "))
    assert recipe.agents["editor"].sampling.logprobs == 5 and recipe.agents["triager"].sampling.logprobs is None


def test_a_model_may_be_left_out_where_there_is_only_one() -> None:
    text = changed("  editor: {model: small, ", "  editor: {")
    assert parse_recipe(text).agents["editor"].model == "small"
    error = refusal(text.replace("  small: smollm2", "  small: smollm2\n  large: {source: ./l.gguf, context: 4096}"))
    assert error.place == "recipe.yaml:18:3"
    assert "small, large" in error.hint


def test_a_burst_is_the_terms_on_which_the_run_may_rent() -> None:
    terms = parse_recipe(changed("deadline: 1h30m", "burst: {gpu: [L4, A10], max_containers: 8, target: 20m}")).burst
    assert terms == Terms(mode="auto", gpu=("L4", "A10"), max_containers=8, target_s=1200.0)
    off = parse_recipe(changed("deadline: 1h30m", "burst: {mode: off, gpu: L4}")).burst
    assert off == Terms(mode="off", gpu=("L4",))
    assert parse_recipe(changed("tokens: 2_000_000", "usd: 2.00")).budget == Budget(usd=2.0)
    assert parse_recipe(TRIAGE).burst is None and parse_recipe(TRIAGE).budget.usd is None


def test_what_is_private_and_what_is_shared_of_it_are_marks_on_fields_agents_and_steps() -> None:
    recipe = parse_recipe(changed("deadline: 1h30m", "private: [email, text]"))
    assert recipe.private == ("email", "text")
    assert parse_recipe(changed("  editor: {", "  editor: {private: true, ")).agents["editor"].private
    step = parse_recipe(changed("    timeout: 2m", "    private: true\n    share: [category]")).steps[0]
    assert step.private and step.share == ("category",)
    assert parse_recipe(changed("    timeout: 2m", "    share: true")).steps[0].share is True
    assert parse_recipe(changed("    timeout: 2m", "    share: false")) == parse_recipe(changed("    timeout: 2m", ""))


@pytest.mark.parametrize(
    ("old", "new", "place", "message", "hint"),
    [
        ("item.text", "itm.text", "22:39", "got `itm`", "`item`"),
        ("params.product", "params.prodct", "10:55", "`params.prodct`", "`product`"),
        ("model: small", "model: smal", "9:12", "got `smal`", "`small`"),
        ("    prompt: ", "    promt: ", "22:5", "got `promt`", "`prompt`"),
        ("tokens: 2_000_000", "usd: -2", "34:15", "at least 0", ""),
        ("deadline: 1h30m", "burst: {mode: on}", "33:15", "expected auto, off or force, got the text 'on'", ""),
        ("deadline: 1h30m", "burst: {mod: auto}", "33:9", "got `mod`", "`mode`"),
        ("deadline: 1h30m", "burst: {gpu: [L4, A1O]}", "33:19", "got the text 'A1O'", "`A10`"),
        ("deadline: 1h30m", "burst: {gpu: [L4, L4]}", "33:19", "every item once", ""),
        ("deadline: 1h30m", "burst: {gpu: []}", "33:14", "at least 1", ""),
        ("deadline: 1h30m", "burst: {max_containers: 0}", "33:25", "at least 1", ""),
        ("deadline: 1h30m", "burst: {target: soon}", "33:17", "expected a duration", ""),
        ("deadline: 1h30m", "private: text", "33:10", "expected a list of fields", ""),
        ("    timeout: 2m", "    share: [summry]", "24:13", "got `summry`", "`summary`"),
        ("    reduce: triage", "    reduce: triage\n    share: [summary]", "28:12", "names none", "`share: true`"),
        ("    timeout: 2m", "    private: yes please", "24:14", "expected true or false", ""),
        ("agent: editor", "swarm: x", "26:5", "`swarm` is not built yet", ""),
        ("  editor: {", "  editor: {tools: [], ", "17:12", "`tools` is not built yet", ""),
        ("2m", "2 m", "24:14", "expected a duration", "without spaces"),
        ("2m", "0s", "24:14", "above zero", ""),
        ("2m", "-1", "24:14", "above zero", ""),
        ("reduce: triage", "reduce: triag", "27:13", "got `triag`", "`triage`"),
        ("for_each: inputs", "for_each: input", "20:15", "got `input`", "`inputs`"),
        ("maxLength: 160", "maxLength: -1", "16:44", "at least 0", ""),
        ("type: string, max", "type: strin, max", "16:25", "expected a type", "`string`"),
        ("      properties:", "      propertees:", "14:7", "keyword of JSON Schema", "`properties`"),
        ("limit: 2", "limit: two", "23:20", "expected a whole number", ""),
        ("  editor: {", "  editor: {sampling: {logprobs: 21}, ", "17:33", "at least 0 and at most 20", ""),
        ("  editor: {", "  editor: {sampling: {logprobs: true}, ", "17:33", "expected a whole number", ""),
        ("  editor: {", "  editor: {output: {type: string}, sampling: {stop: [x]}, ", "17:53", "no `stop` beside", ""),
        ("  editor: {", "  editor: {sampling: {logprob: 5}, ", "17:23", "got `logprob`", "`logprobs`"),
        ("version: 1", "version: 2", "1:10", "expected 1, got the number 2", ""),
        ("version: 1\n", "", "1:1", "with `version`", ""),
        ("name: triage", "name: 12", "2:7", "got the number 12", '"12"'),
        ("item.text", "steps.report", "22:45", "a step that this one needs", "`needs`"),
        ("item.text", "item.text | uppr", "22:51", "a filter", "`upper`"),
        ("item.text", "items", "22:39", "got `items`", "`reduce`"),
        ("item.text", "agents.triager", "22:39", "got `agents`", "steps.x"),
        ("item.text", "always()", "22:39", "got `always`", "`when` only"),
        ("item.text }}", "item.text }", "22:13", "Jinja2", ""),
        ("item.text", "9 ** 9 ** 9", "22:13", "no powers", ""),
        ("t in items", "t in itens", "30:19", "got `itens`", "`items`"),
        ("      {% endfor %}\n", "", "30:7", "endfor", ""),
        ("for {{ params.product }}", "for {{ item.product }}", "10:48", "got `item`", "persona"),
        ("agent: editor", "agent: '{{ matrix.a }}'", "26:23", "`matrix.a`", ""),
        ("id: report", "id: triage", "25:9", "first at line 19, col 9", ""),
        ("id: report", "id: inputs", "25:9", "not `inputs`", ""),
        ("output: triage", "output: x", "32:9", "got `x`", "triage, report"),
        ("timeout: 2m", "combine: x", "24:5", "together with `reduce`", ""),
        ("reduce: triage", "reduce: triage\n    for_each: inputs", "27:5", "got both", ""),
        ("agent: editor", "agent: editor\n    agent: editor", "27:5", "given twice: first at line 26, col 5", ""),
        ("agent: editor", "needs: [report]\n    agent: editor", "26:12", "report → report", ""),
        ("for_each: inputs", "for_each: report", "20:15", "triage → report → triage", ""),
        ("agent: editor", "\tagent: editor", "26:5", "YAML", "spaces"),
        ("agent: editor", "when: all_ok() and )\n    agent: editor", "26:11", "Jinja2", ""),
        ("agent: editor", "when: stps.x\n    agent: editor", "26:11", "got `stps`", "`steps`"),
        ("default: Acme Notes", "default: 3", "4:36", "a default that is text", '"3"'),
        ("default: Acme Notes", "default: x, required: true", "4:36", "expected no default", ""),
    ],
)
def test_an_error_says_where_what_and_what_to_do(old: str, new: str, place: str, message: str, hint: str) -> None:
    error = refusal(changed(old, new))
    assert message in error.message
    assert hint in error.hint
    assert error.place == f"recipe.yaml:{place}"
    assert error.snippet == changed(old, new).split("\n")[int(place.split(":")[0]) - 1]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("500ms", 0.5), ("2m", 120), ("1h30m", 5400), ("90", 90), ("1.5", 1.5), ("1d", 86400)],
)
def test_durations_are_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_recipe(changed("deadline: 1h30m", f"deadline: {text}")).deadline_s == seconds


def test_a_prompt_may_be_left_out_only_where_rows_can_bring_messages() -> None:
    assert parse_recipe(small("for_each: inputs")).steps[0].prompt is None
    assert "for_each: inputs" in refusal(small("needs: []")).hint


def test_an_agent_may_come_from_the_matrix_if_every_combination_names_one() -> None:
    agents = "{}\n  b: {}"
    step = "agent: '{{ matrix.who }}', matrix: {who: [a, b], n: [1, 2]}, prompt: '{{ matrix.n }}'"
    text = small("", agent=agents).replace("agent: a, ", step)
    assert parse_recipe(text).steps[0].matrix == {"who": ("a", "b"), "n": (1, 2)}
    error = refusal(text.replace("[a, b]", "[a, c]"))
    assert "got `c` (with who=c, n=1)" in error.message


def test_input_is_there_where_a_chain_of_for_each_begins_with_rows() -> None:
    follow = "  - {id: t, agent: a, for_each: s, prompt: '{{ input.x }} {{ item }}'}\n"
    assert parse_recipe(small("for_each: inputs") + follow)
    assert "got `input`" in refusal(small("prompt: x") + follow).message


def test_a_persona_may_use_what_the_matrices_of_all_its_steps_share() -> None:
    agent = "{persona: 'You write {{ matrix.tone }} notes.'}"
    assert parse_recipe(small("prompt: x, matrix: {tone: [dry, warm]}", agent=agent))
    assert "`matrix.tone`" in refusal(small("prompt: x", agent=agent)).message


def test_matrix_values_that_read_alike_are_refused() -> None:
    assert "differ as text" in refusal(small("prompt: x, matrix: {n: [1, '1']}")).message


@pytest.mark.parametrize(
    ("written", "kept"),
    [("true", "true"), ("false", "false"), ("'{{ all_ok() }}'", "all_ok()"), ("always()", "always()")],
)
def test_when_is_an_expression_with_or_without_braces(written: str, kept: str) -> None:
    assert parse_recipe(small(f"prompt: x, when: {written}")).steps[0].when == kept


def test_yes_and_on_are_words_where_text_is_expected_and_truth_where_that_is() -> None:
    extra = "params: {on: yes, no: {type: boolean, default: on}}\n"
    recipe = parse_recipe(small("prompt: '{{ params.on }}', continue_on_error: yes", extra=extra))
    assert recipe.params["on"] == Param(default="yes")
    assert recipe.params["no"].default is True
    assert recipe.steps[0].continue_on_error is True


def test_an_enum_of_yes_and_no_stays_text() -> None:
    recipe = parse_recipe(small("prompt: x", agent="{output: {enum: [yes, no, 1e3, 007, 2020-01-01]}}"))
    assert recipe.agents["a"].output == {"enum": ["yes", "no", 1000.0, "007", "2020-01-01"]}


def test_anchors_and_merges_are_followed() -> None:
    extra = "description: &d hello\n"
    text = (
        small("prompt: *d, retry: &r {limit: 3}", extra=extra)
        + "  - {id: t, agent: a, prompt: y, retry: {<<: *r, limit: 4}}\n"
    )
    recipe = parse_recipe(text)
    assert recipe.steps[0].prompt == "hello"
    assert recipe.steps[1].retry.limit == 4


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "[" * 200,
        "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9) if i else 'x'}]\n" for i in range(12)),
        "a: !!python/object/apply:os.system [ls]",
        "[" + "x," * 100_001 + "]",
        "#" * (4 * 1024 * 1024 + 1),
        'a: "\\U00110000"',
        'a: "\\ud83d"',
        "a: \x00",
        "a: 1e999",
        "a: " + "9" * 5000,
        "a: 1\n---\nb: 2",
        "",
        "version: 1\nname: n\nmodels: {m: x}\nagents: {a: {persona: '{{ " + "(" * 3000 + " }}'}}\nsteps: []",
        small("prompt: '{{ " + "(" * 3000 + " }}'"),
        small("prompt: '{% include \"/etc/passwd\" %}'"),
        small("prompt: '" + "{% for a in [1] %}" * 60 + "{% endfor %}" * 60 + "'"),
        small("prompt: x, matrix: {" + ", ".join(f"m{i}: [1,2,3,4,5,6,7,8,9]" for i in range(9)) + "}"),
    ],
    ids=range(18),
)
def test_what_could_exhaust_or_escape_is_refused(text: str) -> None:
    assert refusal(text).message


def test_a_long_chain_of_steps_is_no_problem() -> None:
    steps = "".join(f"  - {{id: s{i}, agent: a, prompt: x, needs: s{i - 1}}}\n" for i in range(1, 1_000))
    recipe = parse_recipe(small("prompt: x").replace("id: s,", "id: s0,") + steps)
    assert recipe.output == "s999"


def test_a_file_is_read_with_its_name_in_errors(tmp_path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + TRIAGE.encode())
    assert load_recipe(path) == parse_recipe(TRIAGE)
    path.write_bytes(b"version: 1\nname: \xff\n")
    with pytest.raises(RecipeError, match="0xff") as caught:
        load_recipe(path)
    assert caught.value.place == f"{path}:2:7"
    for missing in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(RecipeError):
            load_recipe(missing)


def test_params_are_converted_by_type() -> None:
    extra = "params: {s: a, i: 1, f: 1.5, b: true, r: {type: integer}, o: {required: false}}\n"
    recipe = parse_recipe(small("prompt: x", extra=extra))
    given_ = {"s": "1", "i": "-7", "f": "2", "b": "no", "r": "5"}
    assert resolve_params(recipe, given_) == {"s": "1", "i": -7, "f": 2.0, "b": False, "r": 5, "o": None}
    for wrong in ({}, {"r": "x"}, {"r": "1", "q": "1"}, {"r": "1", "b": "maybe"}, {"r": "1", "f": "nan"}):
        with pytest.raises(UsageError):
            resolve_params(recipe, wrong)


def test_a_recipes_identity_ignores_comments_and_layout_only() -> None:
    same = parse_recipe("# a comment\n" + changed("retry: {limit: 2, backoff: 1s}", "retry:\n      limit: 2"))
    other = parse_recipe(changed("limit: 2", "limit: 3"))
    assert fingerprint_source(same) == fingerprint_source(parse_recipe(TRIAGE)) != fingerprint_source(other)


_PIECES = [
    "{", "}", "[", "]", ": ", "- ", "\n", "  ", "&a ", "*a", "!!x ", "|", ">", "'", '"', "\\", "{{ ", " }}", "{% ",
    "#", "\t", "<<", "version: 1", "steps", "item", "\x85", "\ufeff", "0x", "1e9", "~", "%YAML 1.1\n", "---", "? ",
]  # fmt: skip


@given(st.one_of(st.text(), st.lists(st.sampled_from(_PIECES)).map("".join)))
def test_any_text_is_a_recipe_or_a_recipe_error(text: str) -> None:
    try:
        parse_recipe(text)
    except RecipeError as error:
        assert error.line is not None and error.line >= 1


@given(st.integers(0, len(TRIAGE)), st.integers(0, 12), st.one_of(st.text(max_size=5), st.sampled_from(_PIECES)))
def test_any_edit_of_a_recipe_is_a_recipe_or_a_recipe_error(at: int, cut: int, new: str) -> None:
    try:
        recipe = parse_recipe(TRIAGE[:at] + new + TRIAGE[at + cut :])
    except RecipeError as error:
        assert error.message and error.file == "recipe.yaml"
    else:
        assert isinstance(recipe, Recipe)
        assert fingerprint_source(recipe)


@given(st.one_of(st.text(alphabet="{}%()[]|.,'\"abitem 019*+-#=<>", max_size=40), st.text(max_size=10)))
def test_any_prompt_is_a_template_or_a_recipe_error(prompt: str) -> None:
    body = yaml.safe_dump({"prompt": prompt, "when": prompt}, default_flow_style=True, width=10**6).strip()[1:-1]
    try:
        parse_recipe(small(body))
    except RecipeError as error:
        assert error.line is not None
