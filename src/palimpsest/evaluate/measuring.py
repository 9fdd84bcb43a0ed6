"""The work of an evaluation: chunk by chunk, ask the unedited model, ask the edited one, record every case."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from palimpsest.errors import OutputError, PalimpsestError, SettingError
from palimpsest.evaluate.answer_cache import AnswerCache
from palimpsest.evaluate.answering import answer
from palimpsest.evaluate.asks import Ask
from palimpsest.evaluate.chunks import chunks_of
from palimpsest.evaluate.kept_texts import kept_texts
from palimpsest.evaluate.modes import Mode, everything
from palimpsest.evaluate.scores import Record
from palimpsest.evaluate.suite import Answers, Suite
from palimpsest.facts.case import Case
from palimpsest.model import Model
from palimpsest.runs import Plan, Progress, Run


class Sheet:
    """Records in memory, with what `Measuring` needs of a `Run`."""

    def __init__(self, plan: Plan) -> None:
        self._planned, self._records = plan.items, dict[Any, Record]()
        self.total = len(plan.items)

    @property
    def done(self) -> int:
        return len(self._records)

    @property
    def remaining(self) -> list[Any]:
        return [item for item in self._planned if item not in self._records]

    @property
    def records(self) -> list[Record]:
        return [self._records[item] for item in self._planned]

    def record(self, item: str, result: Record, seconds: float) -> None:
        self._records[item] = {"id": item, **result}

    def fail(self, item: str, error: PalimpsestError, seconds: float) -> None:
        self._records[item] = {"id": item, "error": str(error)}


class Measuring:
    """Goes through the chunks and records every case."""

    def __init__(self, model: Model, cases: Sequence[Case], suite: Suite, cache: AnswerCache | None) -> None:
        self.model, self.cases, self.suite, self.cache = model, cases, suite, cache
        self._compares = {name for name, metric in suite.metrics.items() if metric.needs_before}

    def fill(self, sheet: Run | Sheet, make: Callable[[], Mode], progress: Progress | None) -> None:
        """Measure everything not recorded yet; `make` gives the mode, and is called only where something is left."""
        if progress is not None:
            progress(sheet.done, sheet.total, "")
        if not sheet.remaining:
            return
        mode: Mode = make()
        for chunk in chunks_of(self.cases):
            left = set(sheet.remaining) & {case.id for case in chunk}
            start = time.perf_counter()
            for name, result in self._chunk(chunk, left, mode) if left else ():
                seconds, start = time.perf_counter() - start, time.perf_counter()
                if isinstance(result, PalimpsestError):
                    sheet.fail(name, result, seconds)
                else:
                    sheet.record(name, result, seconds)
                if progress is not None:
                    progress(sheet.done, sheet.total, name)

    def _chunk(
        self, chunk: Sequence[Case], left: set[Any], mode: Mode
    ) -> Iterator[tuple[str, Record | PalimpsestError]]:
        """The records of a chunk; all of it is asked, whatever is left, so that its batches are always the same."""
        asks: dict[str, Sequence[Ask]] = {}
        failed: dict[str, PalimpsestError] = {}
        for case in chunk:
            try:
                asks[case.id] = list(self.suite.asks(case))
            except PalimpsestError as error:
                failed[case.id] = error
        before = answer(self.model, everything(asks), cache=self.cache)
        told = mode.asked(chunk, asks)
        for case in chunk:
            if case.id not in left:
                continue
            if case.id in failed:
                yield case.id, failed[case.id]
                continue
            try:
                record = self._before(case, before)
                mode.fill(record, case, asks[case.id], before, told)
            except (OutputError, SettingError):  # not the case's fault
                raise
            except PalimpsestError as error:
                yield case.id, error
            else:
                yield case.id, record

    def _before(self, case: Case, before: Answers) -> Record:
        """The part of a record that the unedited model decides."""
        numbers = self.suite.measure(case, before, before)
        pre = {name: value for name, value in numbers.items() if name not in self._compares}
        relation, subject = case.cluster
        record: Record = {"relation": relation, "subject": subject}
        if pre.get("nll_true") is not None and pre.get("nll_new") is not None:
            record["eligible"] = pre["nll_true"] < pre["nll_new"]  # type: ignore[operator]
        return record | {"pre": pre} | kept_texts(self.suite, case, before)  # after an edit, its texts take their place
