"""Forensics: what was done to a model, read from its weights.

found = scan(model)                           # edited only: which layers look edited                     scan
found = line_up(model, subjects)              # edited only: which of these it was edited about, and where   line_up
change = difference(edited, base)             # with the base: which weights, how large, of what rank     difference
told = decode(edited, base, subjects, objects) # which subject, which new answer, which old one           decode
change.reversal(edited, base=base)            # an `Edit` that takes a foreign change back
removal(model, found)                         # without the base: the direction that stands out, taken down  removal
"""

from palimpsest.erase.forensics.decode import Decoded, Ranking, decode
from palimpsest.erase.forensics.difference import Difference, WeightDifference, difference
from palimpsest.erase.forensics.line_up import Candidate, LineUp, line_up
from palimpsest.erase.forensics.removal import removal
from palimpsest.erase.forensics.scan import LayerScan, Scan, scan

__all__ = [
    "Candidate",
    "Decoded",
    "Difference",
    "LayerScan",
    "LineUp",
    "Ranking",
    "Scan",
    "WeightDifference",
    "decode",
    "difference",
    "line_up",
    "removal",
    "scan",
]
