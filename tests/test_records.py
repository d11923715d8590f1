"""Records to JSON and back: the same record, or one message that names the field."""

import dataclasses
import json
import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from search.errors import RunDirectoryError
from search.records import from_json, to_json


class Colour(StrEnum):
    GRAY = "gray"
    RGB = "rgb"


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str
    share: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Whole:
    colour: Colour
    place: Path
    parts: tuple[Part, ...]
    by_label: dict[int, float]
    pair: tuple[str, str]
    limit: int | None
    strength: float | tuple[float, ...]
    free: dict[str, Any]
    best: Part | None = None
    on: bool = True


WHOLE = Whole(
    colour=Colour.RGB,
    place=Path("a/b"),
    parts=(Part(name="x"), Part(name="y", share=1.0)),
    by_label={0: 1.9, 1: 0.7},
    pair=("no", "yes"),
    limit=None,
    strength=(0.5, 0.9),
    free={"anything": [1, None]},
)


def stored(record: Any) -> Any:
    return json.loads(json.dumps(to_json(record)))


@pytest.mark.parametrize(
    "record", [WHOLE, dataclasses.replace(WHOLE, limit=3, strength=0.1, best=Part(name="z"))]
)
def test_a_record_comes_back_as_it_was(record):
    assert from_json(Whole, stored(record)) == record


def test_a_number_that_is_none_is_nan_again():
    record = dataclasses.replace(WHOLE, by_label={0: float("nan")})
    assert math.isnan(from_json(Whole, stored(record)).by_label[0])


def test_fields_with_defaults_may_be_missing():
    assert from_json(Part, {"name": "x"}) == Part(name="x")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": ({"new": 1}, "f.json: unknown field 'new'"),
    "enum": ({"colour": "blue"}, "f.json: colour: must be one of gray, rgb, is 'blue'"),
    "text for a number": ({"limit": "3"}, "f.json: limit: must be a whole number, is '3'"),
    "truth for a number": ({"limit": True}, "f.json: limit: must be a whole number, is True"),
    "number for truth": ({"on": 1}, "f.json: on: must be true or false, is 1"),
    "deep": ({"parts": [{"name": 1}]}, "f.json: parts: [0]: name: must be text, is 1"),
    "missing deep": ({"best": {}}, "f.json: best: name is missing"),
    "length": ({"pair": ["a"]}, "f.json: pair: must be a list of 2"),
    "object": ({"by_label": [1]}, "f.json: by_label: must be an object"),
    "key": ({"by_label": {"a": 1}}, "f.json: by_label: must be keys that are int"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_with_file_and_field(change, message):
    with pytest.raises(RunDirectoryError) as raised:
        from_json(Whole, {**stored(WHOLE), **change}, where="f.json")
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("data", [[], None, "text", 3])
def test_what_is_no_object_is_no_record(data):
    with pytest.raises(RunDirectoryError, match=r"f\.json: must be an object"):
        from_json(Part, data, where="f.json")
