"""What every metric says of every way to edit `smollm2`, on the same real records; set PALIMPSEST_RECORDS to their folder.

    python experiments/evaluate_smollm2.py run [JOB ...]     # e.g. counterfact/rome, fluency/rome, zsre/memit; all when none is given
    python experiments/evaluate_smollm2.py page              # docs/evaluate-on-smollm2.md

Each job is one run of `palimpsest.evaluate`, resumable, into run/evaluate/JOB; its results go to results/evaluate/JOB.json. Jobs
that are finished are not run again.
"""

import json
import os
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import palimpsest as pal
from palimpsest.evaluate.compare import compare
from palimpsest.evaluate.suites.symmetry import REVERSE
from palimpsest.evaluate.suites.synonymy import SYNONYMS
from palimpsest.facts.case import Case
from palimpsest.facts.case_reading import read_cases
from palimpsest.runs import atomic_write
from palimpsest.runs.json_text import plain

ROOT = Path(__file__).parents[1]
WORK, RESULTS = ROOT / "run" / "evaluate", ROOT / "results" / "evaluate"
FAMILY = "counterfact+teacher_forcing+generation+locality+hase+counterfact_plus"


@dataclass(frozen=True)
class Way:
    """A way to edit: arguments of `palimpsest.evaluate`."""

    method: str | None
    mode: str = "each"
    settings: dict[str, Any] = field(default_factory=dict)


WAYS = {
    "none": Way(None),
    "rome": Way("rome"),
    "memit": Way("memit", "batch"),
    "ft": Way("ft"),
    "ft-l": Way("ft", settings={"preset": "ft-l"}),
    "alphaedit": Way("alphaedit", "sequence", {"together": 20}),
    "random": Way("random"),
}
SINGLE = {"rome": Way("rome"), "memit": Way("memit"), "neurons": Way("neurons"), "none": Way(None)}


@dataclass(frozen=True)
class Sample:
    """Records: a file (under the folder of real records, or "shipped"), how many, the suite, the ways to edit them, and the
    relations that the suite asks about (all when none is named)."""

    file: str
    count: int
    suite: str
    ways: dict[str, Way]
    relations: Collection[str] = ()

    def cases(self) -> list[Case]:
        """The first `count` records in the order of the file."""
        found = read_cases("shipped" if self.file == "shipped" else Path(os.environ["PALIMPSEST_RECORDS"]) / self.file)
        wanted = [case for case in found if not self.relations or case.fact.relation in self.relations]
        return wanted[: self.count]


SAMPLES = {
    "counterfact": Sample("counterfact/counterfact.json", 200, FAMILY, WAYS),
    "fluency": Sample("counterfact/counterfact.json", 12, "fluency", WAYS),
    "zsre": Sample("zsre/zsre_mend_eval.json", 40, "zsre", SINGLE),
    "knowedit": Sample("knowedit/wiki_counterfact_test.json", 20, "knowedit", SINGLE),
    "mquake": Sample("mquake/MQuAKE-CF.json", 12, "mquake", SINGLE),
    "symmetry": Sample("shipped", 30, "symmetry", SINGLE, tuple(REVERSE)),
    "synonymy": Sample("counterfact/counterfact.json", 30, "synonymy", SINGLE, tuple(SYNONYMS)),
}


def show(done: int, total: int, label: str) -> None:
    if total > 20 and done % 10 == 0:
        print(f"  {done}/{total} {label}", flush=True)


def run(job: str) -> None:
    """One job, unless it is finished."""
    sample_name, way_name = job.split("/")
    stored = RESULTS / sample_name / f"{way_name}.json"
    if stored.is_file():
        return
    sample = SAMPLES[sample_name]
    way, model = sample.ways[way_name], pal.load("smollm2")
    scores = pal.evaluate(
        model,
        sample.cases(),
        method=way.method,
        mode=way.mode,
        suite=sample.suite,
        out=WORK / job,
        progress=show,
        **way.settings,
    )
    print(job, *[f"{row['metric']} {row.get('after') or row['before']}" for row in scores.table()], flush=True)
    stored.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(WORK / job / "results.json", stored)


def compared(sample: str) -> dict[str, Any]:
    """Paired differences between the ways of a sample, with what Holm's procedure leaves of them."""
    there = [name for name in SAMPLES[sample].ways if name != "none" and (RESULTS / sample / f"{name}.json").is_file()]
    pairs = [(a, b) for i, a in enumerate(there) for b in there[i + 1 :]]
    return {f"{a} - {b}": compare(WORK / sample / a, WORK / sample / b).to_json() for a, b in pairs}


def main() -> None:
    """`run` or `page`."""
    if sys.argv[1] == "page":
        from evaluate_smollm2_page import write  # beside this file

        return write()
    every = [f"{sample}/{way}" for sample in SAMPLES for way in SAMPLES[sample].ways]
    for job in sys.argv[2:] or every:
        run(job)
    for sample in SAMPLES:
        if (RESULTS / sample).is_dir():
            atomic_write(RESULTS / sample / "compared.json", json.dumps(plain(compared(sample)), indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
