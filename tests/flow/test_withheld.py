"""A prompt is made without what is private, or it isn't made: nothing of a template gets around that."""

from __future__ import annotations

from typing import Any

import pytest

from gx.core.errors import GxError
from gx.flow import templates
from gx.flow.withheld import PrivateRead, Withheld, changed, named_in, result_without, row_without

ROW: dict[str, Any] = {
    "id": 7,
    "email": "ann@example.org",
    "text": "It broke.",
    "tags": ["a", "b"],
    "from": {"email": "bob@example.org", "name": "Bob"},
    "seen": [{"email": "eve@example.org", "at": "noon"}],
    "nil": None,
}
PRIVATE = frozenset({"email", "nil", "gone"})


def known() -> dict[str, Any]:
    row = row_without(ROW, PRIVATE, "item")
    items = [result_without({"mail": "ann@example.org", "n": 1}, ("n",), "items") for _ in range(3)]
    return {"item": row, "input": row, "items": items, "steps": {"a": Withheld("steps.a")}, "matrix": {}, "params": {}}


def whole() -> dict[str, Any]:
    items = [{"mail": "ann@example.org", "n": 1} for _ in range(3)]
    return {"item": ROW, "input": ROW, "items": items, "steps": {"a": "ann"}, "matrix": {}, "params": {}}


@pytest.mark.parametrize(
    "template",
    [
        "{{ item.text }} {{ item['id'] }}",
        "{{ item.tags | join(', ') }}{{ item['from'].name }}{{ item.seen[0].at }}",
        "{% for one in item.seen %}{{ one.at }}{% endfor %}",
        "{% for i in items %}{{ i.n }}{% endfor %}{{ items | map(attribute='n') | sum }}{{ items | length }}",
        "{{ item.other | default('none') }}{% if item.text is defined %}!{% endif %}",
        "{% set x = item.email %}{{ item.text }}",
        "{% if false %}{{ item.email }}{% endif %}fine",
        "{% macro m(row) %}{{ row.text }}{% endmacro %}{{ m(item) }}",
        "{{ items | groupby('n') | length }}{{ items | selectattr('n', 'eq', 1) | list | length }}",
    ],
)
def test_what_reads_nothing_private_comes_out_the_same_without_it(template: str) -> None:
    if "set x" in template:  # asked for and thrown away: private all the same
        with pytest.raises(PrivateRead):
            templates.render(template, known())
        return
    assert templates.render(template, known()) == templates.render(template, whole())


READS = [
    "{{ item.email }}",
    "{{ item['email'] }}",
    "{{ item.get('email') }}{{ item['get']('email') }}",
    "{{ item }}",
    "{{ item | tojson }}",
    "{{ item | json }}",
    "{{ item | string }}",
    "{{ item | list }}",
    "{{ item | length }}",
    "{{ item | items | list }}",
    "{{ item | dictsort }}",
    "{{ item.items() | list }}",
    "{{ item.values() | list }}",
    "{{ item.copy() }}",
    "{% for key in item %}{{ key }}{% endfor %}",
    "{% for key, value in item.items() %}{{ value }}{% endfor %}",
    "{% for key in ['em' ~ 'ail'] %}{{ item[key] }}{% endfor %}",
    "{{ item | attr('email') }}",
    "{{ item | attr('_shown') }}{{ item._shown }}{{ item['_shown'] }}",
    "{{ item.__class__ }}",
    "{{ [item] | map(attribute='email') | first }}",
    "{{ [item] | sum(attribute='email') }}",
    "{{ [item] | sort(attribute='email') | length }}",
    "{{ [item] | groupby('email') | length }}",
    "{{ [item] | selectattr('email') | list | length }}",
    "{{ [item] | rejectattr('email', 'none') | list | length }}",
    "{{ [item] | unique(attribute='email') | list | length }}",
    "{{ [item] | tojson }}",
    "{{ {'a': item} }}",
    "{{ {'a': item} | tojson }}",
    "{{ item.seen }}",
    "{{ item.seen | tojson }}",
    "{{ item.seen[0].email }}",
    "{{ item['from'].email }}",
    "{{ item['from'] }}",
    "{% set x = item.email %}{{ x }}",
    "{% set x %}{{ item.email }}{% endset %}{{ x }}",
    "{% set it = item %}{{ it.email | length }}",
    "{% with x = item %}{{ x.email }}{% endwith %}",
    "{% macro m(x) %}{{ x.email }}{% endmacro %}{{ m(item) }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ item.email }}{% endcall %}",
    "{% filter upper %}{{ item.email }}{% endfilter %}",
    "{% block b %}{{ item.email }}{% endblock %}{{ self.b() }}",
    "{% if item.email %}a{% else %}b{% endif %}",
    "{% if 'ann' in item.email %}a{% endif %}",
    "{% if 'email' in item %}a{% endif %}",
    "{% if item.email == 'x' %}a{% else %}b{% endif %}",
    "{% if 'x' == item.email %}a{% else %}b{% endif %}",
    "{% if item.email is defined %}a{% endif %}",
    "{% if item.email is none %}a{% else %}b{% endif %}",
    "{% if item.nil is none %}a{% endif %}",
    "{% if item.email is string %}a{% endif %}",
    "{% if item is mapping %}a{% endif %}",
    "{% if item is sequence %}a{% endif %}",
    "{% if item is iterable %}a{% endif %}",
    "{{ item.gone | default('it has none') }}",
    "{% if item.gone is undefined %}a{% endif %}",
    "{{ item.email | default('x') }}",
    "{{ item.email | int(default=3) }}",
    "{{ item.email | float(default=3) }}",
    "{{ item.email and 'a' }}",
    "{{ 'a' if item.email else 'b' }}",
    "{{ item.email ~ '' }}",
    "{{ item.email[0] }}",
    "{{ item.email.upper() }}",
    "{{ '%s'.format(item.email) }}{{ '{}'.format(item.email) }}",
    "{{ '{0.email}'.format(item) }}",
    "{{ '{x[email]}'.format(x=item) }}",
    "{{ ''.join([item.email]) }}",
    "{{ [1] | join(item.email) }}",
    "{{ {item.email: 1} | length }}",
    "{{ {'x': 1}[item.email] | default('y') }}",
    "{{ [item.email].index('x') }}",
    "{{ [item.email] == ['x'] }}",
    "{{ (item.email,) < ('x',) }}",
    "{% for i in items %}{{ loop.changed(i.mail) }}{% endfor %}",
    "{{ items | map(attribute='mail') | first }}",
    "{{ items | map('tojson') | first }}",
    "{{ items | tojson }}",
    "{{ items }}",
    "{{ items[0] }}",
    "{{ items | batch(2) | list }}" if "batch" in templates.ENVIRONMENT.filters else "{{ items | first }}",
    "{{ items | unique | list | length }}",
    "{{ items | sort(attribute='mail') | map(attribute='n') | sum }}",
    "{{ items | min(attribute='mail') }}",
    "{{ items[0].keys() | list }}",
    "{{ items | sum(attribute='n') }}{{ items[0] == items[1] }}",
    "{{ items[0] in items[1:] }}",
    "{{ steps }}",
    "{{ steps.a }}",
    "{{ steps.a | length }}",
    "{{ steps.a.x | default('none') }}",
    "{{ steps['a'] | reverse }}",
    "{{ steps.values() | list | tojson }}",
]


@pytest.mark.parametrize("template", READS)
def test_no_template_gets_at_what_is_private_nor_is_taken_for_one_that_reads_nothing(template: str) -> None:
    with pytest.raises((PrivateRead, GxError)):
        templates.render(template, known())


@pytest.mark.parametrize(
    "expression",
    [
        "item.email",
        "not item.email",
        "item.email == 'x'",
        "item.gone is defined",
        "'x' in steps.a",
        "items[0].mail > 1",
    ],
)
def test_a_condition_that_reads_something_private_has_no_answer_without_it(expression: str) -> None:
    with pytest.raises((PrivateRead, GxError)):
        templates.holds(expression, known())


def test_nothing_private_is_within_a_withheld_value() -> None:
    row = known()["item"]
    assert "@example.org" not in repr({name: row._shown[name] for name in row._shown})
    with pytest.raises(PrivateRead) as read:
        templates.render("{{ item['from'].email }}", known())
    assert read.value.path == "item.from.email"


def test_a_value_without_private_parts_is_changed_as_it_is_and_a_withheld_one_in_what_is_known_of_it() -> None:
    def upper(row: dict[str, Any]) -> dict[str, Any]:
        return {name: str(part).upper() for name, part in row.items()}

    assert changed({"a": "b"}, upper) == {"a": "B"}
    row = changed(row_without({"text": "t", "email": "e"}, PRIVATE, "item"), upper)
    assert templates.render("{{ item.text }}", {"item": row}) == "T"
    with pytest.raises(PrivateRead):
        templates.render("{{ item.email }}", {"item": row})


def test_a_private_name_is_found_at_any_depth() -> None:
    assert named_in({"body": {"metadata": [{"email": 1}]}}, PRIVATE) == "email"
    assert named_in({"body": ["email"], "text": "email"}, PRIVATE) == ""


def test_tests_of_jinja_still_answer() -> None:
    names = {"x": [1, 2], "y": None}
    assert templates.render("{{ x is iterable }} {{ z is defined }} {{ y is none }} {{ 2 is in x }}", names) == (
        "true false true true"
    )
    assert templates.render("{{ x | select('odd') | list }}{{ x | map('string') | join }}", names) == "[1]12"
