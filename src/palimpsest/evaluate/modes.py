"""How edits and cases meet: no edit, one edit for all, one edit a case, or a sequence measured at its check points.

Each mode answers, for a chunk of cases, what the edited model says, and puts it into their records. The unedited model was asked
before, once for the chunk (`before`), whatever the mode.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from palimpsest.edit import Edit
from palimpsest.edit.registry import Editor
from palimpsest.edit.requests import why_unreadable
from palimpsest.errors import EditError, FactError
from palimpsest.evaluate.answering import answer
from palimpsest.evaluate.asks import Ask
from palimpsest.evaluate.kept_texts import kept_texts
from palimpsest.evaluate.scores import Record
from palimpsest.evaluate.suite import Answers, Suite
from palimpsest.facts.case import Case
from palimpsest.model import Model

Asked = Mapping[str, Sequence[Ask]]  # by the id of the case


@runtime_checkable
class Mode(Protocol):
    """What every mode has."""

    def asked(self, cases: Sequence[Case], asks: Asked) -> Mapping[str, Answers]:
        """What edited models answer to a whole chunk, by the name of the moment."""
        ...

    def fill(
        self, record: Record, case: Case, asks: Sequence[Ask], before: Answers, told: Mapping[str, Answers]
    ) -> None:
        """Put what was measured of one case into its record."""
        ...


@dataclass(frozen=True)
class Unedited:
    """There is only before."""

    def asked(self, cases: Sequence[Case], asks: Asked) -> Mapping[str, Answers]:
        """Nothing."""
        return {}

    def fill(
        self, record: Record, case: Case, asks: Sequence[Ask], before: Answers, told: Mapping[str, Answers]
    ) -> None:
        """Nothing."""


@dataclass(frozen=True)
class OneEdit:
    """One edit, all cases; `failed` says of cases why they are not in it."""

    model: Model
    suite: Suite
    edit: Edit
    dose: float
    failed: Mapping[str, str]

    def asked(self, cases: Sequence[Case], asks: Asked) -> Mapping[str, Answers]:
        """The chunk, asked together."""
        with self.edit.applied(self.model, self.dose):
            return {"post": answer(self.model, everything(asks))}

    def fill(
        self, record: Record, case: Case, asks: Sequence[Ask], before: Answers, told: Mapping[str, Answers]
    ) -> None:
        """The metrics after the edit."""
        refuse_failed(case, self.failed)
        record["post"] = self.suite.measure(case, before, told["post"])
        record |= kept_texts(self.suite, case, told["post"])


@dataclass(frozen=True)
class EachItsOwn:
    """One edit a case, undone before the next."""

    model: Model
    suite: Suite
    editor: Editor
    dose: float

    def asked(self, cases: Sequence[Case], asks: Asked) -> Mapping[str, Answers]:
        """Nothing is common to the cases."""
        return {}

    def fill(
        self, record: Record, case: Case, asks: Sequence[Ask], before: Answers, told: Mapping[str, Answers]
    ) -> None:
        """Edit, ask, undo."""
        if not case.facts:
            raise FactError(f"The case {case.id} has no fact to edit; measure it with an edit, or in another mode.")
        for fact in case.facts:
            if why := why_unreadable(self.model, fact):
                raise EditError(why)
        edit = self.editor.edit(list(case.facts))
        record["edit"] = dict(edit.notes)
        with edit.applied(self.model, self.dose):
            after = answer(self.model, asks)
        record["post"] = self.suite.measure(case, before, after)
        record |= kept_texts(self.suite, case, after)


@dataclass(frozen=True)
class CheckPoint:
    """The model after so many edits: everything written so far as one edit (None: nothing could be), and of which cases."""

    edits: int
    edit: Edit | None
    written: frozenset[str]


@dataclass(frozen=True)
class AlongSequence:
    """Everything edited so far, at every check point; cases without facts at all of them."""

    model: Model
    suite: Suite
    points: Sequence[CheckPoint]
    dose: float
    failed: Mapping[str, str]

    def asked(self, cases: Sequence[Case], asks: Asked) -> Mapping[str, Answers]:
        """At each check point, the cases of the chunk that were written by then."""
        told = {}
        for point in self.points:
            here = {case.id: asks[case.id] for case in cases if case.id in asks and _is_in(case, point)}
            if not here:
                continue
            if point.edit is None:
                told[str(point.edits)] = answer(self.model, everything(here))
            else:
                with point.edit.applied(self.model, self.dose):
                    told[str(point.edits)] = answer(self.model, everything(here))
        return told

    def fill(
        self, record: Record, case: Case, asks: Sequence[Ask], before: Answers, told: Mapping[str, Answers]
    ) -> None:
        """The metrics at each check point, and those of the final model as "post"."""
        refuse_failed(case, self.failed)
        points = [point for point in self.points if _is_in(case, point)]
        if not points:
            record.pop("written", None)  # of the unedited model
            record["edits"] = 0  # written after the last check point: only its "before" is known
            return
        record["at"] = {str(p.edits): self.suite.measure(case, before, told[str(p.edits)]) for p in points}
        record["edits"] = points[-1].edits
        record["post"] = record["at"][str(points[-1].edits)]
        record |= kept_texts(self.suite, case, told[str(points[-1].edits)])


def everything(asks: Asked) -> list[Ask]:
    """What all cases ask, each thing once."""
    return list(dict.fromkeys(ask for of_case in asks.values() for ask in of_case))


def refuse_failed(case: Case, failed: Mapping[str, str]) -> None:
    """Raise `EditError` where the case could not be written."""
    if case.id in failed:
        raise EditError(failed[case.id])


def _is_in(case: Case, point: CheckPoint) -> bool:
    return not case.facts or case.id in point.written
