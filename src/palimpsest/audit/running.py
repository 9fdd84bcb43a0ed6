"""Working off experiments: rows one by one into a resumable run, and evidence from rows.

A unit that cannot be measured has a row that says why, and stops no other. An experiment whose rows cannot be concluded from is
named in the report as not tested with its reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import palimpsest
from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import Experiment, Row, Rows
from palimpsest.audit.setting import Setting
from palimpsest.errors import PalimpsestError
from palimpsest.facts import Fact
from palimpsest.runs import Plan, Progress, Run

FORMAT = 1  # of rows; raised when an experiment's rows change their meaning


def run_rows(
    made: Experiment, bench: Bench, folder: Path, progress: Progress | None = None, label: str = ""
) -> list[Row]:
    """Every unit's row, measured or read back; those that failed have "error". Progress is told `label`, or the name."""
    units = list(made.units(bench.setting))
    if not units:
        return []
    card = bench.setting.to_json()
    plan = Plan(units, {"experiment": made.name, "format": FORMAT, "version": palimpsest.__version__, "setting": card})
    with Run(folder, plan) as run:
        for unit in run.items():
            try:
                run.record(unit, made.measure(bench, str(unit)))
            except PalimpsestError as error:
                run.fail(unit, error)
            if progress:
                progress(run.done, run.total, label or made.name)
        if run.done == run.total:
            run.finish({})
        return list(run.records)


def measured(rows: Sequence[Row]) -> list[Row]:
    """Those that did not fail."""
    return [row for row in rows if "error" not in row]


def concluded(made: Experiment, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> tuple[list[Evidence], str]:
    """What an experiment's rows say, and why they say nothing where they do not."""
    wanted = (made.name, *made.needs)
    good = {name: measured(rows.get(name, ())) for name in wanted}
    failed = [str(row["error"]) for row in rows.get(made.name, ()) if "error" in row]
    if made.units(setting) and not good[made.name]:
        return [], f"no unit could be measured: {failed[0] if failed else 'none was'}"
    try:
        found = list(made.conclude(setting, facts, good))
    except PalimpsestError as error:
        return [], str(error)
    missing = [name for name in made.needs if not good[name]]
    return found, f"it reads {', '.join(missing)}, and there are no rows of that" if missing and not found else ""


def untrained_rows(
    bench: Bench,
    experiments: Mapping[str, Experiment],
    names: Sequence[str],
    units: int,
    folder: Path,
    progress: Progress | None,
) -> dict[str, list[Row]]:
    """Rows of the same experiments at a model that was never trained: claims about it are empty."""
    model = bench.untrained[0]
    setting = replace(
        bench.setting,
        model=model.name,
        weights=model.fingerprint(),
        confirmation=bench.setting.confirmation[:units],
    )
    empty = Bench(model, bench.facts, setting, pool=bench.pool)
    return {
        name: measured(run_rows(experiments[name], empty, folder / name, progress))
        for name in names
        if name in experiments
    }
