"""Results as JSON text: strict, the same bytes for the same content, and closed to what JSON cannot hold.

NaN becomes null; an infinite number becomes "inf" or "-inf", because strict JSON has neither. Arrays (numpy, torch)
become lists, tuples become lists, and objects with `to_json` become what that gives.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from palimpsest.errors import InputError


def plain(value: Any, where: str = "the result") -> Any:
    """`value` as dictionaries, lists, text, numbers, booleans and None only.

    Args:
        value: what to convert.
        where: what to call it in a message; parts are named after it, as in "the result['scores'][3]".

    Raises:
        InputError: some part is of a type JSON cannot hold, or two keys of one object become the same text.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        converted: dict[str, Any] = {}
        for key, part in value.items():
            if not isinstance(key, str | int | float | bool | None):
                raise InputError(f"{where} has the key {key!r}, and JSON keys are text; use text as its keys.")
            name = key if isinstance(key, str) else str(key)
            if name in converted:
                raise InputError(f"{where} has two keys that are both {name!r} as text; use text as its keys.")
            converted[name] = plain(part, f"{where}[{name!r}]")
        return converted
    if isinstance(value, list | tuple):
        return [plain(part, f"{where}[{index}]") for index, part in enumerate(value)]
    if isinstance(value, PurePath):
        return str(value)
    for method in ("to_json", "tolist"):
        if callable(getattr(value, method, None)) and not isinstance(value, type):
            return plain(getattr(value, method)(), where)
    raise InputError(
        f"{where} is of type {type(value).__name__}, which JSON cannot hold, got {value!r:.80}; "
        f"use numbers, text, lists, dictionaries or arrays."
    )


def to_line(record: Mapping[str, Any]) -> bytes:
    """One JSON object on one line, UTF-8, with its line end; the order of keys is kept.

    Raises:
        InputError: as `plain`.
    """
    return _encoded(json.dumps(plain(record, "the record"), ensure_ascii=False, allow_nan=False))


def to_document(content: Mapping[str, Any], where: str) -> bytes:
    """One JSON object over several indented lines, UTF-8, with its line end; the order of keys is kept.

    Raises:
        InputError: as `plain`, naming `where`.
    """
    return _encoded(json.dumps(plain(content, where), ensure_ascii=False, allow_nan=False, indent=2))


def _encoded(text: str) -> bytes:
    # a lone surrogate has no UTF-8; its escape, as in "\ud800", is what JSON writes for it anyway
    return f"{text}\n".encode("utf-8", "backslashreplace")
