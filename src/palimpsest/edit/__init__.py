"""Edits: the artefact, and the methods that make it. `palimpsest.edit(...)` is the function of the same name here."""

from palimpsest.edit.artefact import Edit
from palimpsest.edit.check import check_editor
from palimpsest.edit.checkpoint import Checkpoint, undo_checkpoint
from palimpsest.edit.lora import Adapter
from palimpsest.edit.memory import Memory
from palimpsest.edit.moments import SecondMoment, cached_moments, collect_moments, load_moments, save_moments
from palimpsest.edit.payload import Cost, Dense, Hook, LowRank, Routed, Routing
from palimpsest.edit.registry import edit, editor, method_names
from palimpsest.edit.rounding import Rounding
from palimpsest.edit.sequence import EditSequence

__all__ = [
    "Adapter",
    "Checkpoint",
    "Cost",
    "Dense",
    "Edit",
    "EditSequence",
    "Hook",
    "LowRank",
    "Memory",
    "Rounding",
    "Routed",
    "Routing",
    "SecondMoment",
    "cached_moments",
    "check_editor",
    "collect_moments",
    "edit",
    "editor",
    "load_moments",
    "method_names",
    "save_moments",
    "undo_checkpoint",
]
