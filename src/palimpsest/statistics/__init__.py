"""Estimates with their uncertainty; knows nothing of models or facts.

    from palimpsest.statistics import cluster_bootstrap
    cluster_bootstrap(scores, [(fact.relation, fact.subject) for fact in facts])
    # 0.81 [0.74, 0.87] (n=100, 23 clusters)

Each file opens with what it computes; each function names its equation and its source.
"""

from palimpsest.statistics.bootstrap import (
    cluster_bootstrap,
    design_effect,
    harmonic_mean_estimate,
    ratio_estimate,
)
from palimpsest.statistics.estimate import Estimate
from palimpsest.statistics.holm import holm
from palimpsest.statistics.icc import icc_2_1, icc_2_k, raters_needed, spearman_brown
from palimpsest.statistics.paired import paired_difference, sign_flip_p
from palimpsest.statistics.power import n_needed
from palimpsest.statistics.proportion import proportion, rule_of_three, wilson

__all__ = [
    "Estimate",
    "cluster_bootstrap",
    "design_effect",
    "harmonic_mean_estimate",
    "holm",
    "icc_2_1",
    "icc_2_k",
    "n_needed",
    "paired_difference",
    "proportion",
    "raters_needed",
    "ratio_estimate",
    "rule_of_three",
    "sign_flip_p",
    "spearman_brown",
    "wilson",
]
