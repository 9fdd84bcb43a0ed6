"""A sequence of edits: each sees the model as edited so far, and protects the keys of those before it.

    sequence = EditSequence(model, method="alphaedit")
    sequence.extend(facts[:100])
    sequence.extend(facts[100:200])
    with sequence.edit.applied(model): ...          # everything so far, as one edit of the model it began with
    sequence.save("sequence/")
    sequence = EditSequence.load(model, "sequence/")   # goes on where it stopped

The memory of earlier keys (`memory`) belongs to the sequence alone: another sequence, or an edit made beside it, never sees
it. The model is left as it was found by every call; apply `sequence.edit` where the edited model is wanted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from palimpsest.edit.artefact import Edit, total
from palimpsest.edit.closed_form import ClosedForm
from palimpsest.edit.memory import Memory
from palimpsest.edit.payload import Dense, Hook, LowRank, Payload, Routed
from palimpsest.edit.registry import Editor, editor
from palimpsest.errors import EditError
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.runs import atomic_write, check_writable


class EditSequence:
    """Edits of one model with one method, one after the other.

    Args:
        model: the model the sequence begins with; left as it was found.
        method: a name of `method_names()`.
        settings: of the method. Closed forms protect earlier keys (`memory=True`) unless told otherwise; ROME as published
            is `memory=False`.

    Attributes:
        edit: everything written so far, as one edit of the model the sequence began with; None before the first.
        steps: how many facts each call of `extend` wrote.
        editor: the method, with the settings in force.
    """

    def __init__(self, model: Model, method: str = "alphaedit", **settings: Any) -> None:
        self.model, self.method = model, method
        self.editor: Editor = editor(model, method, **settings)
        if isinstance(self.editor, ClosedForm) and "memory" not in settings:
            self.editor.settings = replace(self.editor.settings, memory=True)
        self.memory = Memory()
        self.edit: Edit | None = None
        self.steps: list[int] = []

    def extend(self, facts: Sequence[Fact]) -> Edit:
        """Write more facts on the model as edited so far.

        Returns:
            the new part alone, an edit of the model with the earlier parts applied.

        Raises:
            FactError, EditError: see the method; the sequence is then as it was before the call.
        """
        memory = self.memory.copy()  # a step that fails halfway must not leave its keys
        if self.edit is None:
            part = whole = self._written(facts, memory)
        else:
            with self.edit.applied(self.model):
                part = self._written(facts, memory)
            payloads = _added(self.edit, part)
            notes = {
                name: [*_listed(self.edit.notes, name), *_listed(part.notes, name)]
                for name in {**self.edit.notes, **part.notes}
            }
            facts_so_far = (*self.edit.facts, *part.facts)
            whole = Edit.made_for(self.model, self.method, payloads, facts_so_far, self.editor.card, notes)
        self.edit, self.memory = whole, memory
        self.steps.append(len(part.facts))
        return part

    def _written(self, facts: Sequence[Fact], memory: Memory) -> Edit:
        if isinstance(self.editor, ClosedForm):
            return self.editor.edit(facts, memory)
        return self.editor.edit(facts)

    def save(self, folder: str | PathLike[str]) -> None:
        """The edit, the memory and the steps, in a folder; raises `EditError` when nothing was written yet."""
        if self.edit is None:
            raise EditError("This sequence has written no fact yet, so there is nothing to save; extend it first.")
        place = check_writable(Path(folder))
        step = f"{len(self.steps)}-{self.edit.fingerprint()[:12]}"
        names = {"edit": f"edit-{step}.safetensors", "memory": f"memory-{step}.safetensors"}
        self.memory.save(place / names["memory"])
        self.edit.save(place / names["edit"])
        # the one file that names the others is switched at once: a kill leaves the sequence as it was saved before
        atomic_write(place / "sequence.json", json.dumps({"method": self.method, "steps": self.steps, **names}) + "\n")
        for old in (*place.glob("edit-*.safetensors"), *place.glob("memory-*.safetensors")):
            if old.name not in names.values():
                old.unlink()

    @classmethod
    def load(cls, model: Model, folder: str | PathLike[str], **settings: Any) -> "EditSequence":
        """Go on with a saved sequence, with the settings it was given before (they are not stored as arguments).

        Raises:
            EditError: the folder holds no whole sequence.
            WeightError: it began with another model.
        """
        place = Path(folder)
        try:
            card = json.loads((place / "sequence.json").read_text("utf-8"))
            steps, method = [int(n) for n in card["steps"]], str(card["method"])
            edit_name, memory_name = Path(card["edit"]).name, Path(card["memory"]).name
        except (OSError, ValueError, KeyError, TypeError):
            raise EditError(f"The folder {place} holds no whole sequence; save it again, or begin a new one.") from None
        edit = Edit.load(place / edit_name)
        edit.check_fits(model)
        sequence = cls(model, method, **settings)
        before = {k: v for k, v in edit.settings.items() if k != "model"}
        now = json.loads(json.dumps(dict(sequence.editor.card)))
        if differing := sorted(name for name in now if name in before and now[name] != before[name]):
            raise EditError(
                f"The sequence in {place} was made with another {differing[0]} ({before[differing[0]]!r}, now "
                f"{now[differing[0]]!r}); load it with the settings it was made with."
            )
        sequence.edit, sequence.steps, sequence.memory = edit, steps, Memory.load(place / memory_name)
        return sequence


def _added(edit: Edit, part: Edit) -> tuple[Payload, ...]:
    """The payloads of both as one set: changes of weights add up, and memories of one kind at one site grow."""
    earlier, later = edit.payloads, part.payloads
    if any(isinstance(p, Hook) for p in (*earlier, *later)):
        raise EditError(f"The edits of {edit.method} are hooks, which cannot be added; apply them one by one.")
    memories = {p.site: p for p in earlier if isinstance(p, Routed)}
    for memory in (p for p in later if isinstance(p, Routed)):
        memories[memory.site] = memories[memory.site].plus(memory) if memory.site in memories else memory
    return (*total([p for p in (*earlier, *later) if isinstance(p, LowRank | Dense)]), *memories.values())


def _listed(notes: Mapping[str, Any], name: str) -> list[Any]:
    """What a part noted under a name, as a list: one entry where the method notes a single thing."""
    found = notes.get(name, [])
    return found if isinstance(found, list) else [found]
