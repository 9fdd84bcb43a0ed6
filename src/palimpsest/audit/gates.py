"""Gates: what must hold before any criterion is scored.

    G0 environment    the doctor's checks (padding on either side, no-op taps, partial runs), the same logits twice, and a
                      restoration of the whole state at the last layer that brings the clean answer back
    G1 facts          known, recalled, told apart (`choosing`), and enough of them
    G2 effect         the corruption moves the answer: the total effect's interval lies above 0
    G4 split          no subject chooses and reports

(G3, published reference values, is part of M5.) A gate that fails stops every verdict: what is measured behind it is noise or a
bug.
"""

from collections.abc import Sequence

import numpy as np
import torch

from palimpsest.audit.bench import Bench
from palimpsest.audit.choosing import Chosen
from palimpsest.audit.experiment import Row
from palimpsest.audit.experiments.roles import total
from palimpsest.locate.tracing.trace import trace
from palimpsest.model import pad
from palimpsest.model.doctor import examine
from palimpsest.statistics import cluster_bootstrap

CLOSE = 1e-4


def environment(bench: Bench) -> str:
    """G0: "" where everything holds, else what does not."""
    model = bench.model
    failed = [check for check in examine(model).checks if check.required and not check.passed]
    if failed:
        return f"the doctor finds {failed[0]} ({failed[0].meaning})"
    fact = bench.confirmation[0]
    batch = pad([list(model.encode(fact.text).ids)])
    with model.evaluating(), torch.no_grad():
        first, second = model.last_logits(batch), model.last_logits(batch)
    if not torch.equal(first, second):
        return f"the same prompt gives logits that differ by {float((first - second).abs().max()):.2g} from run to run"
    found = trace(model, fact, layers=[model.n_layers - 1], samples=2, noise_level=bench.noise_level)
    gap = float(np.abs(found.patched[-1, -1] - found.clean).max())
    if gap > CLOSE:
        return f"restoring the last state leaves the answer {gap:.2g} from the clean run"
    return ""


def facts_gate(chosen: Chosen) -> str:
    """G1: enough facts is checked when they are chosen; here only that relations are not all one."""
    relations = {fact.relation for fact in chosen.confirmation}
    return "" if len(relations) > 1 else f"all facts have one relation, {next(iter(relations))!r}"


def split_gate(chosen: Chosen) -> str:
    """G4."""
    both = {fact.subject for fact in chosen.discovery} & {fact.subject for fact in chosen.confirmation}
    return f"the subject {sorted(both)[0]!r} is in both splits" if both else ""


def effect_gate(bench: Bench, rows: Sequence[Row]) -> str:
    """G2, from the rows of `tracing`: total effects, as the mean over facts with its interval."""
    totals = [(total(row["mlp"]), bench[str(row["id"])]) for row in rows]
    measured = [(value, fact) for value, fact in totals if np.isfinite(value)]
    if not measured:
        return "no fact has a total effect"
    effect = cluster_bootstrap(
        [value for value, _ in measured], [(fact.relation, fact.subject) for _, fact in measured]
    )
    return "" if effect.low > 0 else f"the total effect is {effect}: the corruption does not move the answer"
