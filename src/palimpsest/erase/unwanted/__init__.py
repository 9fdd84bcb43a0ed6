"""Associations that must go: remove them, then try to bring them back, against the base rate."""

from palimpsest.erase.unwanted.associations import (
    Association,
    read_associations,
    shipped_associations,
    shipped_controls,
)
from palimpsest.erase.unwanted.elicit import Elicitation, base_rates, elicit
from palimpsest.erase.unwanted.remove import remove

__all__ = [
    "Association",
    "Elicitation",
    "base_rates",
    "elicit",
    "read_associations",
    "remove",
    "shipped_associations",
    "shipped_controls",
]
