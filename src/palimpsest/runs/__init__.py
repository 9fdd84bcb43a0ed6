"""A long piece of work: its plan, one line a finished item, resuming, shards, an atomic end; not what is run."""

from palimpsest.runs.atomic import atomic_path, atomic_write, check_writable
from palimpsest.runs.load import load_results, load_samples
from palimpsest.runs.merge import merge
from palimpsest.runs.plan import Plan
from palimpsest.runs.progress import Progress
from palimpsest.runs.run import Run
from palimpsest.runs.shard import Shard

__all__ = [
    "Plan",
    "Progress",
    "Run",
    "Shard",
    "atomic_path",
    "atomic_write",
    "check_writable",
    "load_results",
    "load_samples",
    "merge",
]
