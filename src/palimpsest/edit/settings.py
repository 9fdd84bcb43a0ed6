"""Settings of a method: a frozen dataclass, a few named presets of it, and what the user gave in their place.

    PRESETS = {"fixed": MemitSettings(), "memit-2022": MemitSettings(preset="memit-2022", same_key="keep")}
    settings = resolve("MEMIT", PRESETS, "fixed", {"steps": 25, "clamp": 1.0})

A setting that is itself a dataclass (the value search of every closed-form method) is reached by the names of its own fields,
so `steps=25` means the same wherever it is written. Each class checks its own values when it is made.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from palimpsest.errors import SettingError, did_you_mean

Settings = TypeVar("Settings")


def resolve(title: str, presets: Mapping[str, Settings], preset: str, given: Mapping[str, Any]) -> Settings:
    """The settings named `preset`, with `given` in the place of theirs.

    Args:
        title: of the method, for messages.
        presets: by name.
        preset: one of them.
        given: any field of the settings, or of a dataclass that is one of their fields.

    Raises:
        SettingError: there is no such preset or setting ("did you mean"), or a value is out of range.
    """
    if preset not in presets:
        raise SettingError(f"{title} has no preset {preset!r}.{did_you_mean(preset, presets)}")
    settings: Any = presets[preset]
    own = {field.name for field in fields(settings)} - {"preset"}
    nested = {name: getattr(settings, name) for name in own if is_dataclass(getattr(settings, name))}
    inner = {field.name: name for name, part in nested.items() for field in fields(part)}
    names = (own - nested.keys()) | inner.keys()
    for name in given:
        if name not in names:
            raise SettingError(f"{title} has no setting {name!r}.{did_you_mean(name, sorted(names))}")
    held = {name: getattr(nested[inner[name]] if name in inner else settings, name) for name in given}
    given = {name: _as_held(title, name, value, held[name]) for name, value in given.items()}
    parts = {
        name: replace(part, **{key: value for key, value in given.items() if inner.get(key) == name})
        for name, part in nested.items()
    }
    return replace(settings, **parts, **{key: value for key, value in given.items() if key in own})


def _as_held(title: str, name: str, value: Any, held: Any) -> Any:
    """`value` in the kind of the one it replaces: a whole number where a number is held becomes one, other kinds are refused."""
    if isinstance(held, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    if type(held) in kinds and type(value) is not type(held) and value is not None:
        raise SettingError(f"{title}'s {name} must be {kinds[type(held)]}, got {value!r}.")
    return value


def one_of(title: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `SettingError` unless `value` is one of `choices`."""
    if value not in choices:
        listed = f"{', '.join(choices[:-1])} and {choices[-1]}"
        raise SettingError(f"{title}'s {name} is one of {listed}, got {value!r}.")


def whole(title: str, name: str, value: object, least: int) -> None:
    """Raise `SettingError` unless `value` is a whole number of `least` or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise SettingError(f"{title}'s {name} must be a whole number of {least} or more, got {value!r}.")


def at_least(title: str, name: str, value: object, least: int | float) -> None:
    """Raise `SettingError` when `value` is below `least` or not a number."""
    if not isinstance(value, int | float) or not value >= least:
        raise SettingError(f"{title}'s {name} must be {least:g} or more, got {value!r}.")
