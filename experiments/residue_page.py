"""docs/residue-measured.md and its figures, from results/residue/ alone; `python experiments/residue.py page` runs it."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pages import cell, table
from palimpsest.erase.residue.plot import plot_residues
from palimpsest.runs import atomic_write
from palimpsest.statistics import Estimate, cluster_bootstrap, holm, paired_difference, sign_flip_p
from residue_choose import CHOSEN, chosen, told
from residue_choose import kept as tried

ROOT = Path(__file__).parents[1]
RESULTS, PAGE, FIGURES = ROOT / "results" / "residue", ROOT / "docs" / "residue-measured.md", ROOT / "docs" / "figures"
METHODS, SIZES, AGAINST = ("rome", "memit", "alphaedit", "ft-l", "overwrite", "overwrite-chosen"), (1, 10, 100), "memit"
MODELS = ("world", "smollm2")
JUDGED, LEAST_ES = "overwrite", 0.95
MARGIN = 0.05  # of PS and NS, within which a method counts as not worse
TRIED = {
    "world": "Tried before, on these facts: a moment weight of 1000 took the old answer further away and cost a tenth of NS; the weight was "
    "then chosen like MEMIT's, on other facts and for single edits ([editing the made world](editing-world.md)): 4000. PS is over all "
    "paraphrases of a record, the first of which `overwrite` is given; unseen wordings, among the judges, are never those.",
    "smollm2": "Half as many facts as on `world`, and no control task of the probes, for a fact takes so much longer here. "
    "`overwrite` has MEMIT's settings here, chosen on other facts; nothing of it was tuned on smollm2. Tried before for "
    "a hundred facts, on these facts: nine settings, each half choosing for the other; the halves differed, and none was taken.",
}
ON = {"world": "on three hundred other facts", "smollm2": "on a hundred other facts"}
JUDGES = ("unseen wording", "probe", "attack", "relearning")
COMMAND = "python experiments/residue_choose.py && python experiments/residue.py run world smollm2 && python experiments/residue.py page"


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
                cell(judges(job), 2),
                cell(share, 2),
                *(cell(job["scores"].get(metric), 2) for metric in ("es", "ps", "ns")),
            ]
        )
    head = ["method-size", "residue AUC", "against never known", "judges alone", "certificates", "ES", "PS", "NS"]
    return table(head, rows)


def judges(job: dict[str, Any]) -> dict[str, Any] | None:
    """The mean of the judges' residue AUCs."""
    own = judged(job)
    read = ~np.isnan(own)
    clusters = [tuple(label) for label, kept in zip(job["clusters"], read, strict=True) if kept]
    return cluster_bootstrap(own[read], clusters).to_json() if read.any() else None


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


@dataclass(frozen=True)
class Against:
    """A job less MEMIT's of the same size, fact by fact: the judges' residue with its p after Holm over the model, PS and NS."""

    job: str
    judges: Estimate | None
    p: float
    ps: Estimate
    ns: Estimate


def against(jobs: dict[str, dict[str, Any]]) -> list[Against]:
    """Every job that has MEMIT's of its size beside it; p by sign flips."""
    found: list[Against] = []
    for size in SIZES:
        other = jobs.get(f"{AGAINST}-{size}")
        for method in METHODS:
            name = f"{method}-{size}"
            job = jobs.get(name)
            if method == AGAINST or job is None or other is None:
                continue
            clusters = [tuple(label) for label in job["clusters"]]
            ps, ns = (paired_difference(job["by_fact"][m], other["by_fact"][m], clusters) for m in ("ps", "ns"))
            judges, p = _judged(job, other, clusters)
            found.append(Against(name, judges, p, ps, ns))
    adjusted = iter(holm([one.p for one in found if one.judges is not None]) if found else [])
    return [replace(one, p=next(adjusted)) if one.judges is not None else one for one in found]


def judged(job: dict[str, Any]) -> Float[np.ndarray, "facts"]:
    """What each fact adds to the mean of the judges' residue AUCs: the mean of these numbers is that mean.

    With n facts, n_j of them read by judge j of J: (n / J) sum over j of share_ij / n_j, where share_ij, of controls that show
    less, is 0 in the sum where it was not read. n_j are those of the model's pairs and the same for all jobs.
    """
    shares = [job["shares"][name]["after"] for name in JUDGES if job["shares"].get(name)]
    own = np.array([[np.nan if value is None else value for value in one] for one in shares])
    if not len(own):
        return np.full(len(job["facts"]), np.nan)
    read = ~np.isnan(own)
    return np.asarray((np.where(read, own, 0.0) / read.mean(axis=1, keepdims=True)).mean(axis=0))


def _judged(job: dict[str, Any], other: dict[str, Any], clusters: list[Any]) -> tuple[Estimate | None, float]:
    mine, theirs = judged(job), judged(other)
    if np.isnan(mine).all() or np.isnan(theirs).all():
        return None, math.nan
    kept = ~np.isnan(mine) & ~np.isnan(theirs)
    of_kept = [label for label, keep in zip(clusters, kept, strict=True) if keep]
    difference = paired_difference(mine[kept], theirs[kept], of_kept)
    return difference, sign_flip_p(mine[kept] - theirs[kept], of_kept, flip="inner")


def paired(found: list[Against]) -> str:
    """The judges' residue against MEMIT's."""
    return table(
        ["method-size", f"residue AUC of the judges less {AGAINST}'s", "n", "p (Holm)"],
        [
            [one.job, cell(one.judges.to_json(), 3), str(one.judges.n), f"{one.p:.4f}"]
            for one in found
            if one.judges is not None
        ],
    )


def no_worse(found: list[Against]) -> str:
    """PS and NS less MEMIT's; not worse where the whole interval lies above -0.05."""
    return table(
        ["method-size", f"PS less {AGAINST}'s", f"NS less {AGAINST}'s"],
        [
            [one.job, *(cell(d.to_json(), 3) + ("" if kept(d) else " (not shown)") for d in (one.ps, one.ns))]
            for one in found
        ],
    )


def kept(difference: Estimate) -> bool:
    """Whether a loss of `MARGIN` is excluded."""
    return difference.low >= -MARGIN


def bar(jobs: dict[str, dict[str, Any]], found: list[Against]) -> str:
    """What was asked of `overwrite` before it was measured, condition by condition."""
    rows = []
    for one in found:
        if one.job.startswith(JUDGED) and one.judges is not None:
            lower = one.judges.high < 0 and one.p < 0.05
            works = jobs[one.job]["scores"]["es"]["value"] >= LEAST_ES
            met = [lower, works, kept(one.ps), kept(one.ns)]
            rows.append([one.job, *("yes" if one_met else "no" for one_met in (*met, all(met)))])
    head = ["method-size", f"judges below {AGAINST}'s", f"ES at least {LEAST_ES}", "PS kept", "NS kept", "all"]
    return table(head, rows)


def not_measured(model: str, jobs: dict[str, dict[str, Any]]) -> list[str]:
    """Jobs of the plan without a file."""
    planned = [f"{method}-{size}" for size in SIZES for method in METHODS if method != CHOSEN]
    planned += [f"{CHOSEN}-{SIZES[-1]}"] if chosen(model) else []
    return [job for job in planned if job not in jobs]


def tuned(model: str) -> str:
    """What was chosen for the largest size, and what there was to choose from."""
    if not tried(model):
        return ""
    rows = table(
        ["tried, a hundred facts an edit", "ES", "PS", "NS"],
        [
            [
                ", ".join(f"{name} {value:g}" for name, value in row["settings"].items()) or AGAINST,
                *(f"{row[metric]:.2f}" for metric in ("es", "ps", "ns")),
            ]
            for row in tried(model)
        ],
    )
    return (
        f"\n\n`{CHOSEN}` has settings for {SIZES[-1]} facts in an edit, chosen by ES, PS and NS and without a look at any residue, {ON[model]} "
        f"(`python experiments/residue_choose.py {model}`, which holds the rule): {told(model)}.\n\n{rows}"
    )


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
        if left := not_measured(model, jobs):
            parts.append(f"Not measured: {', '.join(left)}.")
        parts.append(f"By readout, against the same answer at other subjects:\n\n{by_readout(jobs)}")
        parts.append(f"Certificates and their base rates:\n\n{base_rates(jobs)}")
        found = against(jobs)
        if any(one.judges is not None for one in found):
            parts.append(f"Paired, fact by fact:\n\n{paired(found)}")
            parts.append(
                f'What it costs in other wordings and at neighbours; "not shown" where a loss of {MARGIN} cannot be excluded:\n\n{no_worse(found)}'
            )
            parts.append(
                f"The bar set for `{JUDGED}` beforehand:\n\n{bar(jobs, found)}\n\n{TRIED.get(model, '')}{tuned(model)}".rstrip()
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
written, 1 always more; below 0.5 the old answer was pushed further down than where it never stood. "Judges alone" is the
mean residue AUC of the readouts that no editor optimised: unseen wordings, probes, attacks and relearning, each by itself. Sampling is none of
them, for without texts drawn it reads candidates after the prompt and in its lens, which `overwrite` is given. Neither texts drawn nor aliases
nor reversed wordings were read here. Intervals are 95 %, by cluster bootstrap over relation and subject; that of "judges alone" holds the
controls as they are."""
    atomic_write(PAGE, "\n\n".join([head, *parts]) + "\n")
