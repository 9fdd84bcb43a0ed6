"""A causal language model one can look inside."""

from palimpsest.model.anatomy import Anatomy
from palimpsest.model.doctor import Diagnosis, examine
from palimpsest.model.load import load
from palimpsest.model.model import Model
from palimpsest.model.partial import Prefix
from palimpsest.model.sites import EMBED, Site
from palimpsest.model.taps import Tap, record, tapped
from palimpsest.model.tokens import Batch, align, encode, pad

__all__ = [
    "EMBED",
    "Anatomy",
    "Batch",
    "Diagnosis",
    "Model",
    "Prefix",
    "Site",
    "Tap",
    "align",
    "encode",
    "examine",
    "load",
    "pad",
    "record",
    "tapped",
]
