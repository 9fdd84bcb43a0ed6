"""The plan of a run: which items, under which settings, fixed before the first one is worked on.

It stands in `plan.json`. A run that is taken up again must have the same plan, or half of its records would mean one
thing and half another.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from palimpsest.errors import InputError, RecordError, SettingError
from palimpsest.runs.json_text import plain, to_document

ItemId: TypeAlias = str | int

PLAN_FILE = "plan.json"
_FORMAT = 1
_ABSENT = object()


@dataclass(frozen=True)
class Plan:
    """Items and settings, checked when made.

    Args:
        items: the id of each item, text or whole numbers, each once, in the order of work. 1 and "1" are two ids.
        settings: whatever decides the outcome (method, seed, versions, ...), as far as JSON can hold it; tuples become
            lists, so that a plan equals itself read back from its file.

    Raises:
        InputError: an id comes twice or is neither text nor a whole number, or JSON cannot hold a setting.
    """

    items: tuple[ItemId, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __init__(self, items: Sequence[ItemId], settings: Mapping[str, Any] | None = None) -> None:
        object.__setattr__(self, "items", tuple(_checked_id(item) for item in items))
        object.__setattr__(self, "settings", plain(dict(settings or {}), "settings"))
        twice = [item for item, times in Counter(self.items).items() if times > 1]
        if twice:
            raise InputError(
                f"Each item of a plan must have its own id, got {listed(twice)} more than once; "
                f"drop the copies or give them other ids."
            )

    def to_bytes(self) -> bytes:
        """What stands in `plan.json`."""
        return to_document({"format": _FORMAT, "items": list(self.items), "settings": self.settings}, "the plan")

    @classmethod
    def read(cls, folder: Path | str) -> Plan:
        """The plan stored in a run's folder.

        Raises:
            RecordError: there is none, or it is not a plan this version can read.
        """
        path = Path(folder) / PLAN_FILE
        try:
            stored = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise RecordError(
                f"{folder} holds no run: {PLAN_FILE} is not there; pass the folder given as --out."
            ) from error
        except OSError as error:
            raise RecordError(f"{path} cannot be read: {error.strerror or error}; check the folder.") from error
        except ValueError as error:
            raise RecordError(f"{path} is not JSON ({error}); restore it, or choose another --out.") from error
        if not isinstance(stored, dict) or stored.get("format") != _FORMAT or not isinstance(stored.get("items"), list):
            found = stored.get("format") if isinstance(stored, dict) else type(stored).__name__
            raise RecordError(
                f"{path} must be a plan of format {_FORMAT}, got {found!r}; it may be another version's, so choose "
                f"another --out."
            )
        try:
            return cls(stored["items"], stored.get("settings", {}))
        except InputError as error:
            raise RecordError(f"{path} is damaged: {error}") from error

    def require_same(self, given: Plan, folder: Path | str) -> None:
        """Passes silently when `given` is this stored plan.

        Raises:
            SettingError: names the first setting that differs, as stored and as given, or how the items differ.
        """
        way_out = "choose another --out, or give what it was started with"
        differing = list(_differences(self.settings, given.settings, ""))
        if differing:
            name, stored, offered = differing[0]
            more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
            raise SettingError(
                f"{folder} holds another run: its setting {name!r} is {_shown(stored)}, got {_shown(offered)}{more}; "
                f"{way_out}."
            )
        if self.items == given.items:
            return
        gone = [item for item in self.items if item not in set(given.items)]
        new = [item for item in given.items if item not in set(self.items)]
        if not gone and not new:
            how = f"its {len(self.items)} items stand in another order"
        else:
            how = f"it has {len(self.items)} items, got {len(given.items)}"
            how += f", without {listed(gone)}" if gone else ""
            how += f", with {listed(new)} in addition" if new else ""
        raise SettingError(f"{folder} holds another run: {how}; {way_out}.")


def listed(items: Sequence[ItemId], most: int = 3) -> str:
    """The first few items as text, and how many more there are: "'a', 'b', 'c' and 4 more"."""
    text = ", ".join(repr(item) for item in items[:most])
    return f"{text} and {len(items) - most} more" if len(items) > most else text


def _checked_id(item: Any) -> ItemId:
    if isinstance(item, bool) or not isinstance(item, str | int):
        raise InputError(
            f"The id of an item must be text or a whole number, got {item!r}; use for example the fact's id."
        )
    return item if isinstance(item, str) else int(item)


def _differences(stored: Any, given: Any, name: str) -> list[tuple[str, Any, Any]]:
    """Dotted name, stored and given value of each setting that differs; dictionaries are compared inside."""
    if isinstance(stored, Mapping) and isinstance(given, Mapping):
        found = []
        for key in dict.fromkeys([*stored, *given]):
            inner = f"{name}.{key}" if name else str(key)
            found += _differences(stored.get(key, _ABSENT), given.get(key, _ABSENT), inner)
        return found
    # True == 1 in Python, not in JSON
    same = stored is given or (type(stored) is type(given) and stored == given)
    number = {type(stored), type(given)} == {int, float} and stored == given
    return [] if same or number else [(name, stored, given)]


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "not set"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
