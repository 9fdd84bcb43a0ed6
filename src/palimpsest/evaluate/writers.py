"""What writes the edits that an evaluation measures: a method, case by case, in one batch, or in a sequence."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from palimpsest.edit import Edit, EditSequence, editor
from palimpsest.edit.registry import Editor
from palimpsest.edit.requests import why_unwritable
from palimpsest.errors import InputError
from palimpsest.evaluate.lifelong import Lifelong, check_points
from palimpsest.evaluate.modes import AlongSequence, EachItsOwn, Mode, OneEdit, Unedited
from palimpsest.evaluate.suite import Suite
from palimpsest.facts.case import Case
from palimpsest.model import Model
from palimpsest.runs import Progress


class Writer:
    """What writes the edits, if anything does."""

    def __init__(
        self,
        model: Model,
        cases: Sequence[Case],
        method: str | None,
        mode: str,
        at: tuple[int, ...],
        together: int,
        settings: Mapping[str, Any],
        progress: Progress | None,
    ) -> None:
        self.model, self.method, self.name, self.together = model, method, mode, together
        self.settings, self.progress = settings, progress
        self.editor: Editor | None = None
        self._sequence: EditSequence | None = None
        self.failed = _unwritable(model, cases) if mode != "each" else {}
        self.cases = [case for case in cases if case.facts and case.id not in self.failed]
        if mode != "each" and not self.cases:
            first = next(iter(self.failed.values()), "the cases hold no facts.").rstrip(".")
            raise InputError(f"No case can be written by a {mode}, because: {first}; give facts with answers to write.")
        self.at = check_points(at, len(self.cases)) if mode == "sequence" else ()
        if method is not None and mode == "sequence":
            self._sequence = EditSequence(model, method, progress=progress, **settings)
            self.editor = self._sequence.editor
        elif method is not None:
            self.editor = editor(model, method, progress=progress, **settings)

    def mode(self, suite: Suite, edit: Edit | None, dose: float, place: Path | None) -> Mode:
        """Makes the edits that are common to all cases, or takes them from `place`."""
        if edit is not None:
            return OneEdit(self.model, suite, edit, dose, {})
        if self.editor is None:
            return Unedited()
        if self.name == "each":
            return EachItsOwn(self.model, suite, self.editor, dose)
        if self.name == "batch":
            return OneEdit(self.model, suite, self._batch(place), dose, self.failed)
        lifelong = Lifelong(
            self.model, self.cases, self.at, self.together, self._begin, place, self.progress, dict(self.failed)
        )
        return AlongSequence(self.model, suite, lifelong.points(), dose, lifelong.failed)

    def _batch(self, place: Path | None) -> Edit:
        """One edit of all facts, kept in a file, so that it is made once."""
        assert self.editor is not None
        path = None if place is None else place.with_suffix(".safetensors")
        if path is not None and path.is_file():
            return Edit.load(path)
        made = self.editor.edit([fact for case in self.cases for fact in case.facts])
        if path is None:
            return made
        made.save(path)
        return Edit.load(path)  # what every later sitting measures

    def _begin(self, saved: Path | None) -> EditSequence:
        """The sequence of this writer: a saved one, or from the start."""
        assert self._sequence is not None
        if saved is None:
            return self._sequence
        return EditSequence.load(self.model, saved, progress=self.progress, **self.settings)


def _unwritable(model: Model, cases: Sequence[Case]) -> dict[str, str]:
    """Cases that no method can write, and why: in an edit of many, one of them would end the work on all."""
    found = ((case.id, why) for case in cases for fact in case.facts if (why := why_unwritable(model, fact)))
    return dict(found)
