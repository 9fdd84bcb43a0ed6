"""Lifelong editing: one edit after the other on one model, and at check points all of them measured again.

    scores = palimpsest.evaluate(model, facts, method="alphaedit", mode="sequence", at=(1, 10, 100, 1000))
    scores.retention("es")       # at each check point, over all facts edited so far, on the model as edited then

A sequence measured right after each edit says what an edit can do; measured on the final model it says what is left of it
(Wang et al. 2024, equation 9; EasyEdit's present code does only the former). Here the sequence is written first and its edit
kept at every check point; then cases are measured, each chunk on every kept edit.

With a folder the sequence is saved at its check points and every `SAVE_EVERY` steps, so that a killed run goes on from there.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palimpsest.edit import Edit, EditSequence
from palimpsest.errors import OutputError, PalimpsestError, SettingError
from palimpsest.evaluate.modes import CheckPoint
from palimpsest.facts.case import Case
from palimpsest.model import Model
from palimpsest.runs import Progress, atomic_write, check_writable

SAVE_EVERY = 25


def check_points(at: Sequence[int], total: int) -> tuple[int, ...]:
    """The numbers of edits to measure after, in order; all edits where none is given.

    Raises:
        SettingError: one is not between 1 and `total`.
    """
    for edits in at:
        if not 1 <= edits <= total:
            raise SettingError(f"A check point is a number of edits from 1 to {total}, got {edits}; leave it out.")
    return tuple(sorted(set(at))) or (total,)


def steps_of(cases: Sequence[Case], at: Sequence[int], together: int) -> list[Sequence[Case]]:
    """The cases of each step: so many together, fewer before a check point."""
    steps: list[Sequence[Case]] = []
    for begin, end in zip((0, *at[:-1]), at, strict=True):
        steps += [cases[i : min(i + together, end)] for i in range(begin, end, together)]
    return steps


@dataclass
class Lifelong:
    """A sequence on its way through its check points.

    Attributes:
        model, cases, at, together: what to write, in which order, measured where, so many cases a step.
        begin: makes the sequence, from a folder with a saved one or anew.
        folder: where it is saved; None keeps it in memory.
        failed: why a case could not be written, by its id.
    """

    model: Model
    cases: Sequence[Case]
    at: tuple[int, ...]
    together: int
    begin: Callable[[Path | None], EditSequence]
    folder: Path | None = None
    progress: Progress | None = None
    failed: dict[str, str] = field(default_factory=dict)

    def points(self) -> list[CheckPoint]:
        """Write what is not written yet, and give the model's edit at every check point."""
        if self.folder is not None:
            check_writable(self.folder)
        done, sequence = self._saved()
        kept: dict[int, Edit | None] = {}
        edits = 0
        steps = steps_of(self.cases, self.at, self.together)
        for number, step in enumerate(steps, start=1):
            edits += len(step)
            if number <= done:
                continue
            sequence = sequence or self.begin(None)
            self._write(sequence, step)
            if edits in self.at:
                kept[edits] = sequence.edit
                self._keep(edits, sequence.edit)
            if edits in self.at or number % SAVE_EVERY == 0:
                self._save(sequence, number)
            if self.progress is not None:
                self.progress(number, len(steps), "sequence")
        ids = [case.id for case in self.cases]
        written = {n: frozenset(ids[:n]) - set(self.failed) for n in self.at}
        return [CheckPoint(n, self._kept(n, kept) if written[n] else None, written[n]) for n in self.at]

    def _write(self, sequence: EditSequence, step: Sequence[Case]) -> None:
        """One step; where it fails the sequence is as it was, and its cases say why."""
        try:
            sequence.extend([fact for case in step for fact in case.facts])
        except (OutputError, SettingError):  # not the fault of these facts
            raise
        except PalimpsestError as error:
            self.failed.update({case.id: str(error) for case in step})

    def _saved(self) -> tuple[int, EditSequence | None]:
        """How many steps a saved sequence has behind it, and the sequence."""
        if self.folder is None or not (self.folder / "state.json").is_file():
            return 0, None
        state: Mapping[str, Any] = json.loads((self.folder / "state.json").read_bytes())
        self.failed.update(state["failed"])
        whole = state["steps"] == len(steps_of(self.cases, self.at, self.together))
        place = None if state["folder"] is None else self.folder / state["folder"]
        return state["steps"], None if whole else self.begin(place)

    def _save(self, sequence: EditSequence, steps: int) -> None:
        if self.folder is None:
            return
        name = None if sequence.edit is None else f"after-{steps}"
        if name is not None:
            sequence.save(self.folder / name)
        # one file says which folder counts, and is switched at once
        state = {"steps": steps, "folder": name, "failed": self.failed}
        atomic_write(self.folder / "state.json", json.dumps(state) + "\n")
        for old in self.folder.glob("after-*"):
            if old.name != name:
                shutil.rmtree(old)

    def _keep(self, edits: int, edit: Edit | None) -> None:
        if self.folder is not None and edit is not None:
            edit.save(self.folder / f"edit-{edits}.safetensors")

    def _kept(self, edits: int, in_memory: Mapping[int, Edit | None]) -> Edit | None:
        """The edit at a check point; from its file, if files are written, so that every sitting measures the same numbers."""
        return in_memory[edits] if self.folder is None else Edit.load(self.folder / f"edit-{edits}.safetensors")
