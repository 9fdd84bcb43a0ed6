"""JSON text: strict, stable, and closed to what JSON cannot hold."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.errors import InputError
from palimpsest.runs.json_text import plain, to_document, to_line
from palimpsest.statistics import Estimate

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(st.characters()), json_like))
def test_a_line_is_one_line_and_reads_back(record):
    line = to_line(record)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line) == record
    assert json.loads(to_document(record, "x")) == record


def test_half_a_character_survives():
    assert json.loads(to_line({"token": "a\ud800b"})) == {"token": "a\ud800b"}


def test_what_becomes_of_other_types():
    value = {
        "nan": math.nan,
        "infinite": [math.inf, -math.inf],
        "array": np.array([[1, 2]], dtype=np.int32),
        "scalar": np.float32(0.5),
        "whole": np.int64(3),
        "yes": np.bool_(True),
        "bad array": np.array([np.nan]),
        "tuple": (1, (2,)),
        "path": Path("a/b"),
        7: "seven",
        "estimate": Estimate(0.5, math.nan, math.nan, n=1, clusters=1),
    }
    assert plain(value) == {
        "nan": None,
        "infinite": ["inf", "-inf"],
        "array": [[1, 2]],
        "scalar": 0.5,
        "whole": 3,
        "yes": True,
        "bad array": [None],
        "tuple": [1, [2]],
        "path": "a/b",
        "7": "seven",
        "estimate": {
            "value": 0.5,
            "low": None,
            "high": None,
            "n": 1,
            "clusters": 1,
            "level": 0.95,
            "method": "",
            "unit": "",
        },
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, {2}]}, r"the result\['a'\]\[1\] is of type set"),
        ({"a": object()}, "type object"),
        ({"a": Estimate}, "type type"),
        ({(1, 2): 3}, r"has the key \(1, 2\)"),
        ({1: 2, "1": 3}, "two keys that are both '1'"),
    ],
)
def test_what_json_cannot_hold_is_named(value, message):
    with pytest.raises(InputError, match=message):
        plain(value)
