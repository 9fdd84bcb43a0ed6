"""Edits: the artefact, and the methods that make it. `palimpsest.edit(...)` is the function of the same name here."""

from palimpsest.edit.artefact import Edit
from palimpsest.edit.check import check_editor
from palimpsest.edit.moments import SecondMoment, cached_moments, collect_moments
from palimpsest.edit.payload import Dense, Hook, LowRank
from palimpsest.edit.registry import edit, editor, method_names

__all__ = [
    "Dense",
    "Edit",
    "Hook",
    "LowRank",
    "SecondMoment",
    "cached_moments",
    "check_editor",
    "collect_moments",
    "edit",
    "editor",
    "method_names",
]
