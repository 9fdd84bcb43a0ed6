"""docs/residue-measured.md and its figures, from results/residue/ alone; `python experiments/residue.py page` runs it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pages import cell, table
from palimpsest.erase.residue.plot import plot_residues
from palimpsest.runs import atomic_write
from palimpsest.statistics import holm, paired_difference, sign_flip_p

ROOT = Path(__file__).parents[1]
RESULTS, PAGE, FIGURES = ROOT / "results" / "residue", ROOT / "docs" / "residue-measured.md", ROOT / "docs" / "figures"
METHODS, SIZES, AGAINST = ("rome", "memit", "alphaedit", "ft-l", "overwrite"), (1, 10, 100), "memit"
MODELS = ("world", "smollm2")
MARGIN = 0.05  # of PS and NS, within which a method counts as not worse
COMMAND = "python experiments/residue.py run world smollm2 && python experiments/residue.py page"


def stored(model: str) -> dict[str, dict[str, Any]]:
    """Job to its record, "none" first, then by size."""
    names = ["none", *(f"{method}-{size}" for size in SIZES for method in METHODS)]
    paths = {name: RESULTS / f"{model}-{name}.json" for name in names}
    return {name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.is_file()}


def summary(jobs: dict[str, dict[str, Any]]) -> str:
    """A row a job: residue against both groups, judges alone, certificates, and the scores of the edits."""
    rows = []
    for name, job in jobs.items():
        certificates = job["certificates"]
        share = certificates.get("share")
        rows.append(
            [
                name,
                cell(job["auc"]["same answer"]["all"]["after"], 2),
                cell(job["auc"]["never known"]["all"]["after"], 2),
                cell(job["judged"], 2),
                cell(share, 2),
                *(cell(job["scores"].get(metric), 2) for metric in ("es", "ps", "ns")),
            ]
        )
    head = ["method-size", "residue AUC", "against never known", "judges alone", "certificates", "ES", "PS", "NS"]
    return table(head, rows)


def by_readout(jobs: dict[str, dict[str, Any]]) -> str:
    """The residue AUC of each readout, a row a job."""
    names = list(next(iter(jobs.values()))["auc"]["same answer"])
    rows = [
        [job, *(cell(record["auc"]["same answer"][name]["after"], 2) for name in names)] for job, record in jobs.items()
    ]
    return table(["method-size", *names], rows)


def base_rates(jobs: dict[str, dict[str, Any]]) -> str:
    """Shares with a certificate where there is nothing to erase, and where nothing was erased."""
    rows = []
    for name, job in jobs.items():
        found = job["certificates"]
        if "withheld" not in found:
            rows.append([name, *(cell(found[group], 2) for group in ("share", "controls", "unknown", "unedited"))])
    return table(["method-size", "edited facts", "controls", "never known", "the same facts, unedited"], rows)


def paired(jobs: dict[str, dict[str, Any]]) -> str:
    """Each method against MEMIT at the same size, fact by fact, on the judges; p by sign flips, Holm over the table."""
    rows, p_values = [], []
    for size in SIZES:
        other = jobs.get(f"{AGAINST}-{size}")
        for method in METHODS:
            job = jobs.get(f"{method}-{size}")
            if method == AGAINST or job is None or other is None or job["judged_shares"] is None:
                continue
            mine, theirs = (
                np.array([np.nan if v is None else v for v in one["judged_shares"]]) for one in (job, other)
            )
            rows_kept = ~np.isnan(mine) & ~np.isnan(theirs)
            clusters = [tuple(label) for label, kept in zip(job["clusters"], rows_kept, strict=True) if kept]
            found = paired_difference(mine[rows_kept], theirs[rows_kept], clusters)
            p_values.append(sign_flip_p(mine[rows_kept] - theirs[rows_kept], clusters, flip="inner"))
            rows.append([f"{method}-{size}", cell(found.to_json(), 3), str(found.n)])
    adjusted = holm(p_values) if p_values else []
    return table(
        ["method-size", f"residue AUC of the judges less {AGAINST}'s", "n", "p (Holm)"],
        [[*row, f"{p:.4f}"] for row, p in zip(rows, adjusted, strict=True)],
    )


def no_worse(jobs: dict[str, dict[str, Any]]) -> str:
    """PS and NS of each method less MEMIT's, fact by fact; not worse where the whole interval lies above -0.05."""
    rows = []
    for size in SIZES:
        other = jobs.get(f"{AGAINST}-{size}")
        for method in METHODS:
            job = jobs.get(f"{method}-{size}")
            if method == AGAINST or job is None or other is None:
                continue
            clusters = [tuple(label) for label in job["clusters"]]
            found = [paired_difference(job["by_fact"][m], other["by_fact"][m], clusters) for m in ("ps", "ns")]
            told = [f"{cell(one.to_json(), 3)}{'' if one.low >= -MARGIN else ' (not shown)'}" for one in found]
            rows.append([f"{method}-{size}", *told])
    return table(["method-size", f"PS less {AGAINST}'s", f"NS less {AGAINST}'s"], rows)


def write() -> None:
    """The page and its figures."""
    parts = []
    for model in MODELS:
        jobs = stored(model)
        if not jobs:
            continue
        first = next(iter(jobs.values()))
        counts = ", ".join(f"{count} {name}" for name, count in first["n"].items())
        parts.append(f"## `{model}`\n\nPairs: {counts}. Left out: {len(first['left_out'])}.\n\n{summary(jobs)}")
        parts.append(f"By readout, against the same answer at other subjects:\n\n{by_readout(jobs)}")
        parts.append(f"Certificates and their base rates:\n\n{base_rates(jobs)}")
        if any(
            "judged_shares" in job and job["judged_shares"] is not None for name, job in jobs.items() if name != "none"
        ):
            parts.append(f"Paired, fact by fact:\n\n{paired(jobs)}")
            parts.append(
                f'What it costs in other wordings and at neighbours; "not shown" where a loss of {MARGIN} cannot be excluded:\n\n{no_worse(jobs)}'
            )
        for size in SIZES:
            several = {name: job for name, job in jobs.items() if name.endswith(f"-{size}")}
            if several:
                figure = f"residue-{model}-{size}.png"
                FIGURES.mkdir(exist_ok=True)
                plot_residues(several).savefig(FIGURES / figure, dpi=110)
                parts.append(f"![Residue by readout and layer on {model}, {size} facts an edit](figures/{figure})")
    head = f"""# Residue measured: what an edit leaves readable

Made by `{COMMAND}` from results/residue/; what the numbers mean is told in [residue](residue.md). 0.5 is no more than where nothing was
written, 1 always more; below 0.5 the old answer was pushed further down than where it never stood. "Judges alone" are readouts that no
editor optimised: unseen wordings, probes, attacks, sampling and relearning. Intervals are 95 %, by cluster bootstrap over relation and subject."""
    atomic_write(PAGE, "\n\n".join([head, *parts]) + "\n")
