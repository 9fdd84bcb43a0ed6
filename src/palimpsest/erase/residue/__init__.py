"""Does the old fact still show? Readouts, controls, the residue AUC and the erasure certificate."""

from palimpsest.erase.residue.attacks import Attacks
from palimpsest.erase.residue.certificate import Certificate, Certificates
from palimpsest.erase.residue.heads import Heads
from palimpsest.erase.residue.lens import LogitLens
from palimpsest.erase.residue.measure import residue
from palimpsest.erase.residue.pair import Pair
from palimpsest.erase.residue.pairs_of import PairSet, pairs_of
from palimpsest.erase.residue.probes import Probes
from palimpsest.erase.residue.readout import Column, Reader, Readout, Table
from palimpsest.erase.residue.relearning import Relearning, RelearningOthers
from palimpsest.erase.residue.result import Residue
from palimpsest.erase.residue.sampling import Sampling
from palimpsest.erase.residue.trained_lens import TrainedLens
from palimpsest.erase.residue.wordings import Wordings

__all__ = [
    "Attacks",
    "Certificate",
    "Certificates",
    "Column",
    "Heads",
    "LogitLens",
    "Pair",
    "PairSet",
    "Probes",
    "Reader",
    "Readout",
    "Relearning",
    "RelearningOthers",
    "Residue",
    "Sampling",
    "Table",
    "TrainedLens",
    "Wordings",
    "pairs_of",
    "residue",
]
