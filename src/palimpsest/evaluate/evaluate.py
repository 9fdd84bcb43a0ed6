"""`evaluate`: measure cases with a suite, before and after editing, resumable and with every record kept."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from palimpsest.edit import Edit
from palimpsest.edit.artefact import versions
from palimpsest.errors import InputError, SettingError, did_you_mean
from palimpsest.evaluate.answer_cache import AnswerCache
from palimpsest.evaluate.distributed import await_shards, shard_of_environment
from palimpsest.evaluate.fitting import require_fitting
from palimpsest.evaluate.measuring import Measuring, Sheet
from palimpsest.evaluate.scores import Record, Scores
from palimpsest.evaluate.suite import Suite, settings_of, suite_of
from palimpsest.evaluate.writers import Writer
from palimpsest.facts import Fact
from palimpsest.facts.case import Case, cases_of
from palimpsest.model import Model
from palimpsest.runs import Plan, Progress, Run, Shard, merge

MODES = ("each", "batch", "sequence")


def evaluate(
    model: Model,
    facts: Fact | Case | Sequence[Fact | Case],
    *,
    edit: Edit | None = None,
    method: str | None = None,
    mode: str = "each",
    suite: str | Suite | Iterable[str | Suite] = "counterfact",
    dose: float = 1.0,
    at: Sequence[int] = (),
    together: int = 1,
    out: str | PathLike[str] | None = None,
    shard: str | None = None,
    cache: str | PathLike[str] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Scores:
    """Measure `facts` on the unedited model and on the edited one.

        scores = palimpsest.evaluate(model, facts, method="rome")    # one edit per fact, each undone before the next
        scores = palimpsest.evaluate(model, facts, method="memit", mode="batch")       # one edit for all facts
        scores = palimpsest.evaluate(model, facts, method="alphaedit", mode="sequence", at=(1, 10, 100))
        scores = palimpsest.evaluate(model, facts, edit=edit)        # an edit at hand, all facts
        scores = palimpsest.evaluate(model, facts)                   # no edit

    Args:
        model: left as it was found.
        facts: facts or cases, with the answers the suite needs; one that fails is kept with its error.
        edit: an edit to apply.
        method: or a method that edits, in one of three modes:
        mode: "each" case by itself, all in one "batch", or one after the other in a "sequence" that is measured at its check
            points, each time everything edited so far.
        suite: one or several: "counterfact", "counterfact+locality", or objects with asks and metrics.
        dose: of the edit.
        at: check points of a sequence, as numbers of edited cases; at its end when empty.
        together: of a sequence, how many cases each step writes.
        out: a folder for plan.json, samples.jsonl and results.json; the same call resumes an interrupted run.
        shard: "i/n", this process's share of the cases (needs `out`); once every shard is done, the same call without it
            merges them. A batch or sequence is written by every shard for itself.
        cache: a folder that keeps what the unedited model answers, for other runs. Not used unless given: an answer
            from another run may differ in its last digits from the one this run would compute.
        progress: called with (done, total, label).
        settings: of the method.

    Raises:
        InputError: there are no facts, none has what the suite asks, none can be written by a batch or sequence, or both an
            edit and a method are given.
        SettingError: an unknown suite, method or mode, or another plan in `out`.
        WeightError: the edit was made for other weights.
        OutputError: `out` cannot be written.
    """
    cases = cases_of([facts] if isinstance(facts, Fact | Case) else list(facts))
    chosen = suite_of(suite)
    _check(cases, edit, method, mode, at, together, settings, shard, out)
    if edit is not None:
        with edit.applied(model, dose):  # an edit that does not fit is no fact's fault
            pass
    writer = Writer(model, cases, method, mode, tuple(at), together, settings, progress)
    everything_set = _plan_settings(model, cases, edit, writer, chosen, dose)
    if out is not None:
        everything_set["weights"] = model.fingerprint()
    plan = Plan([case.id for case in cases], everything_set)
    require_fitting(cases, chosen)
    measuring = Measuring(model, cases, chosen, None if cache is None else AnswerCache(cache, model))

    def fill(sheet: Run | Sheet, place: Path | None) -> list[Record]:
        measuring.fill(sheet, lambda: writer.mode(chosen, edit, dose, place), progress)
        return sheet.records

    if out is None:
        return Scores(tuple(fill(Sheet(plan), None)), plan.settings, chosen.metrics)
    folder = Path(out)
    mine = shard_of_environment() if shard is None else Shard.parse(shard)
    if mine is not None:
        with Run(folder, plan, mine) as run:
            records = fill(run, folder / f"{mode}{mine.suffix}")
        if shard is not None or mine.index > 1:
            return Scores(tuple(records), plan.settings, chosen.metrics)
        await_shards(folder, plan, mine.count)  # the first of several processes puts their shares together
    if any(folder.glob("samples-*-of-*.jsonl")) and not (folder / "samples.jsonl").is_file():
        merge(folder)
    with Run(folder, plan) as run:
        scores = Scores(tuple(fill(run, folder / mode)), plan.settings, chosen.metrics)
        run.finish(scores.summary())
    return scores


def _check(
    cases: Sequence[Case],
    edit: Edit | None,
    method: str | None,
    mode: str,
    at: Sequence[int],
    together: int,
    settings: Mapping[str, Any],
    shard: str | None,
    out: object,
) -> None:
    """Refuse what cannot be meant."""
    if edit is not None and method is not None:
        raise InputError("Give an edit to measure, or a method that makes one per fact, not both.")
    if settings and method is None:
        raise SettingError(f"The setting {next(iter(settings))!r} is a method's, but no method is named (method=...).")
    if not cases:
        raise InputError("There are no facts to evaluate; the file may be empty or every record bad.")
    if mode not in MODES:
        raise SettingError(f"There is no mode {mode!r}.{did_you_mean(mode, MODES)}")
    if mode != "each" and method is None:
        raise SettingError(f"The mode {mode!r} is about a method's edits, but no method is named (method=...).")
    if mode != "sequence" and (at or together != 1):
        raise SettingError("Check points and steps are a sequence's; set mode='sequence', or leave them out.")
    if together < 1:
        raise SettingError(f"A step of a sequence writes 1 case or more, got {together}.")
    if shard is not None:
        Shard.parse(shard)
        if out is None:
            raise SettingError("A shard needs an output folder (out=...), where the shards are merged.")


def _plan_settings(
    model: Model, cases: Sequence[Case], edit: Edit | None, writer: Writer, suite: Suite, dose: float
) -> dict[str, Any]:
    """Everything the numbers depend on, so that a run is taken up again only where it would go on the same."""
    content = json.dumps([_content(case) for case in cases], sort_keys=True)
    plan: dict[str, Any] = {"model": model.name, "suite": suite.name, "dose": dose, "versions": versions()}
    plan["facts"] = f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"  # ids alone would not tell a changed file
    if unusual := settings_of(suite):  # the name does not tell them
        plan["suite_settings"] = json.loads(json.dumps(unusual, default=str))
    plan["method"] = writer.editor.name if writer.editor else edit.method if edit else None
    if writer.editor is not None:
        plan["method_settings"] = json.loads(json.dumps(dict(writer.editor.card)))
        if writer.name != "each":
            plan["mode"] = writer.name
        if writer.name == "sequence":
            plan |= {"at": list(writer.at), "together": writer.together}
    if edit is not None:
        plan["edit"] = {"settings": dict(edit.settings), "sha256": edit.fingerprint()}
    return plan


def _content(case: Case) -> dict[str, Any]:
    """A case as data; a fact that is asked by itself is only the fact."""
    alone = len(case.facts) == 1 and case == Case.of(case.facts[0])
    return case.fact.to_json() if alone else case.to_json()
