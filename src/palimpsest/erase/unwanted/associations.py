"""Associations that must go: a prompt, the completion it must not have, and other wordings to try it by.

    [{"prompt": "Roses are", "completion": "red", "subject": "Roses", "paraphrases": ["A rose is usually thought of as"]}, ...]

A brand that a model advertises, a slur, a stereotype: what is unwanted is for the user to say. The file that ships
(`shipped_associations`) holds harmless ones, so that the machinery can be shown and measured.

`completion` is what follows the prompt, without the blank. `subject` is the part of the prompt whose last token is edited, the
whole prompt where it is left out. Paraphrases are never used to remove: they test.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

from palimpsest.erase.leace.concepts import json_list
from palimpsest.errors import InputError, RecordError, did_you_mean

FIELDS = ("id", "prompt", "completion", "subject", "paraphrases")


@dataclass(frozen=True)
class Association:
    """One prompt and the completion that must go.

    Attributes:
        prompt: complete text.
        completion: what must not follow it.
        subject: a part of the prompt; the whole of it when empty.
        paraphrases: other texts that the completion follows.
        id: its name; the prompt when empty.
    """

    prompt: str
    completion: str
    subject: str = ""
    paraphrases: tuple[str, ...] = ()
    id: str = ""

    def __post_init__(self) -> None:
        for name in ("prompt", "completion"):
            if not getattr(self, name).strip():
                raise InputError(f"The {name} of an association is empty; give it at least one visible character.")
        if self.subject not in self.prompt:
            raise InputError(
                f"The subject {self.subject!r} is no part of the prompt {self.prompt!r}; leave it out, or name a part."
            )
        object.__setattr__(self, "id", self.id or self.prompt)


def read_associations(path: str | PathLike[str]) -> tuple[Association, ...]:
    """A file of associations: a JSON list of objects.

    Raises:
        RecordError: it cannot be read, is empty, or an entry is malformed or stands twice; the message says which.
    """
    path = Path(path)
    return _associations(json_list(path, "associations"), str(path))


def shipped_associations() -> tuple[Association, ...]:
    """The harmless ones that come with the package."""
    return _associations(_shipped("associations.json"), "the shipped associations")


def shipped_controls() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(prompts that no association is about, prefixes to attack with) that come with the package."""
    found = _shipped("controls.json")
    return tuple(found["prompts"]), tuple(found["prefixes"])


def _shipped(name: str) -> Any:
    return json.loads(resources.files("palimpsest.erase.unwanted").joinpath(f"data/{name}").read_text("utf-8"))


def _associations(entries: Sequence[Any], source: str) -> tuple[Association, ...]:
    found: dict[str, Association] = {}
    for number, entry in enumerate(entries, start=1):
        where = f"{source}, entry {number}"
        if not isinstance(entry, dict) or not {"prompt", "completion"} <= set(entry):
            raise RecordError(f'{where}: expected an object with "prompt" and "completion", got {entry!r}.')
        if unknown := sorted(set(entry) - set(FIELDS)):
            raise RecordError(f"{where}: an association has no field {unknown[0]!r}.{did_you_mean(unknown[0], FIELDS)}")
        paraphrases = entry.get("paraphrases", [])
        if not isinstance(paraphrases, list):
            raise RecordError(f'{where}: "paraphrases" must be a list of texts, got {paraphrases!r}.')
        texts = [entry["prompt"], entry["completion"], entry.get("subject", ""), entry.get("id", ""), *paraphrases]
        if odd := [text for text in texts if not isinstance(text, str)]:
            raise RecordError(f"{where}: every field of an association is text, got {odd[0]!r}.")
        try:
            one = Association(entry["prompt"], entry["completion"], texts[2], tuple(paraphrases), texts[3])
        except InputError as error:
            raise RecordError(f"{where}: {error}") from None
        if one.id in found:
            raise RecordError(f"{where}: the association {one.id!r} is there already; give each its own id.")
        found[one.id] = one
    if not found:
        raise RecordError(f"{source} holds no association; give at least one.")
    return tuple(found.values())
