"""Learned editors: MEND and KE, which learn what to make of a gradient. See `palimpsest.edit.learned.training`."""

from palimpsest.edit.learned.file import Learned
from palimpsest.edit.learned.settings import KeSettings, Learning, MendSettings
from palimpsest.edit.learned.training import train

__all__ = ["KeSettings", "Learned", "Learning", "MendSettings", "train"]
