"""The bytes of every event are for ever: what any gx wrote, every later gx reads, and writes alike.

`golden_events.json` has two examples of each body: one with every field set to something that is not its default, and
one with the required fields only. A changed line there is a changed format; a new field adds to "full".
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from gx.core import event as e
from gx.core.task import CloudLease, EdgeLease, Lease

GOLDEN: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "golden_events.json").read_text())


def test_every_body_has_its_bytes_pinned() -> None:
    assert sorted(GOLDEN) == sorted(e.tag_of(body) for body in e.BODIES)


def test_tags_are_distinct_and_say_what_happened() -> None:
    tags = [e.tag_of(body) for body in e.BODIES]
    assert len(set(tags)) == len(tags)
    assert all(len(tag.split(".")) == 2 for tag in tags)


@pytest.mark.parametrize("body_type", e.BODIES, ids=e.tag_of)
def test_the_pinned_bytes_are_read_and_written_alike(body_type: type[e.Value]) -> None:
    for text in GOLDEN[e.tag_of(body_type)].values():
        body = e.decode_body(text)
        assert type(body) is body_type
        assert e.encode_body(body).decode() == text
        assert "\n" not in text


@pytest.mark.parametrize("body_type", e.BODIES, ids=e.tag_of)
def test_the_pinned_bytes_show_every_field(body_type: type[e.Value]) -> None:
    fields = msgspec.structs.fields(body_type)
    full, least = (json.loads(GOLDEN[e.tag_of(body_type)][name]) for name in ("full", "least"))
    assert set(full) == {"type", *(field.encode_name for field in fields)}
    assert set(least) == {"type", *(field.encode_name for field in fields if field.required)}


def test_fields_of_a_newer_minor_version_are_passed_over() -> None:
    text = GOLDEN["task.failed"]["full"]
    assert e.decode_body(text[:-1] + ',"added_later":1}') == e.decode_body(text)


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        e.decode_body('{"type":"task.levitated","run":"r"}')


@pytest.mark.parametrize(
    "lease, text",
    [
        (EdgeLease(epoch=3, incarnation=2), '{"type":"edge","epoch":3,"incarnation":2}'),
        (CloudLease(call="fc-1", gpu="L4"), '{"type":"cloud","call":"fc-1","gpu":"L4"}'),
    ],
)
def test_the_bytes_of_leases_are_pinned(lease: Lease, text: str) -> None:
    assert msgspec.json.encode(lease).decode() == text
    assert msgspec.json.decode(text, type=Lease) == lease
