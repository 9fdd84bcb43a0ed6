"""LEACE: erase a concept so that no linear reader finds it, and change as little else as that allows (Belrose et al. 2023)."""

from palimpsest.erase.leace.concepts import Concept, Labelled, number_concept, read_concept, relation_concept
from palimpsest.erase.leace.erase import erase_concept, fit_erasers, sites_of, states_of
from palimpsest.erase.leace.eraser import Eraser, closed_form, random_eraser
from palimpsest.erase.leace.fitter import LeaceFitter
from palimpsest.erase.leace.fold import folded

__all__ = [
    "Concept",
    "Eraser",
    "Labelled",
    "LeaceFitter",
    "closed_form",
    "erase_concept",
    "fit_erasers",
    "folded",
    "number_concept",
    "random_eraser",
    "read_concept",
    "relation_concept",
    "sites_of",
    "states_of",
]
