"""Estimates with their uncertainty; knows nothing of models or facts.

    from palimpsest.statistics import cluster_bootstrap
    cluster_bootstrap(scores, [(fact.relation, fact.subject) for fact in facts])
    # 0.81 [0.74, 0.87] (n=100, 23 clusters)

Each file opens with what it computes; each function names its equation and its source.
"""

from palimpsest.statistics.anova import omega_squared, welch
from palimpsest.statistics.bell import BellFit, bell_fit, dose_fit
from palimpsest.statistics.bootstrap import (
    cluster_bootstrap,
    design_effect,
    harmonic_mean_estimate,
    ratio_estimate,
)
from palimpsest.statistics.calibration import (
    Calibration,
    brier_score,
    calibrate,
    cross_validated_isotonic,
    expected_calibration_error,
)
from palimpsest.statistics.circular import circular_shift_p, spearman
from palimpsest.statistics.estimate import Estimate
from palimpsest.statistics.fdr import benjamini_hochberg
from palimpsest.statistics.hill import HillFit, hill_fit
from palimpsest.statistics.holm import holm
from palimpsest.statistics.icc import icc_2_1, icc_2_k, raters_needed, spearman_brown
from palimpsest.statistics.isotonic import isotonic_at, isotonic_fit
from palimpsest.statistics.means import of_means, of_records, of_two
from palimpsest.statistics.meta import RandomEffects, random_effects
from palimpsest.statistics.paired import paired_difference, sign_flip_p
from palimpsest.statistics.power import n_needed
from palimpsest.statistics.proportion import clustered_proportion, proportion, rule_of_three, wilson
from palimpsest.statistics.ranking import auprc, auroc, auroc_estimate, compared_estimate
from palimpsest.statistics.signal_detection import d_a, d_prime
from palimpsest.statistics.survival import kaplan_meier, kaplan_meier_quantile
from palimpsest.statistics.tost import Equivalence, equivalence, non_inferior

__all__ = [
    "BellFit",
    "Calibration",
    "Equivalence",
    "Estimate",
    "HillFit",
    "RandomEffects",
    "auprc",
    "auroc",
    "auroc_estimate",
    "bell_fit",
    "benjamini_hochberg",
    "brier_score",
    "calibrate",
    "circular_shift_p",
    "cluster_bootstrap",
    "clustered_proportion",
    "compared_estimate",
    "cross_validated_isotonic",
    "d_a",
    "d_prime",
    "design_effect",
    "dose_fit",
    "equivalence",
    "expected_calibration_error",
    "harmonic_mean_estimate",
    "hill_fit",
    "holm",
    "icc_2_1",
    "icc_2_k",
    "isotonic_at",
    "isotonic_fit",
    "kaplan_meier",
    "kaplan_meier_quantile",
    "n_needed",
    "non_inferior",
    "of_means",
    "of_records",
    "of_two",
    "omega_squared",
    "paired_difference",
    "proportion",
    "random_effects",
    "raters_needed",
    "ratio_estimate",
    "rule_of_three",
    "sign_flip_p",
    "spearman",
    "spearman_brown",
    "welch",
    "wilson",
]
