"""Second moments of keys: C = E[k k^T] at the input of a down-projection, over ordinary text.

C says which directions ordinary text uses; ROME and its successors write where it is small (Meng et al. 2022, section 3.1;
the statistic is not centred).

    moments = collect_moments(model, range(5, 10), shipped_text())     # one pass for all layers          collect
    moments[9].solve(k)                                                # C^-1 k, in float64               moment
    moments[9].report()                                                # conditioning and null space
    save_moments(moments, Path("moments.safetensors"))                 # one file, with where it is from  files

`cached_moments` is `collect_moments` that never measures the same thing twice; `moments_in_file` is the same in a file of one's
own, and `read_bau_lab` and `dataset_text` bring in what others measured or wrote.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from palimpsest.edit.moments.bau_lab import read_bau_lab
from palimpsest.edit.moments.collect import collect_moments, token_budget
from palimpsest.edit.moments.files import load_moment, load_moments, save_moment, save_moments
from palimpsest.edit.moments.kept import moments_in_file, put_in_file
from palimpsest.edit.moments.moment import NULL_THRESHOLD, SAFE_SHARES, SecondMoment
from palimpsest.edit.moments.provenance import TOKENS_PER_KEY_WIDTH, provenance_of
from palimpsest.edit.moments.text import dataset_text
from palimpsest.model import Model
from palimpsest.model.smollm2 import cache_folder
from palimpsest.runs import Progress

__all__ = [
    "NULL_THRESHOLD",
    "SAFE_SHARES",
    "TOKENS_PER_KEY_WIDTH",
    "SecondMoment",
    "cached_moments",
    "collect_moments",
    "dataset_text",
    "load_moment",
    "load_moments",
    "moments_in_file",
    "put_in_file",
    "read_bau_lab",
    "save_moment",
    "save_moments",
    "token_budget",
]


def cached_moments(
    model: Model, layers: Sequence[int], text: str, *, tokens: int | None = None, progress: Progress | None = None
) -> dict[int, SecondMoment]:
    """`collect_moments`, kept in the cache folder: the same weights, text and budget are never measured twice.

    A pass that was killed continues where it stood.
    """
    budget = token_budget(model, layers, tokens)
    places = {layer: _place(card) for layer, card in provenance_of(model, layers, text, budget).items()}
    missing = [layer for layer in layers if not places[layer].is_file()]
    if missing:
        resume = places[missing[0]].with_suffix(f".{'-'.join(map(str, missing))}.partial")
        measured = collect_moments(model, missing, text, tokens=budget, progress=progress, resume=resume)
        for layer, moment in measured.items():
            save_moment(moment, places[layer])
    return {layer: load_moment(places[layer]) for layer in layers}


def _place(provenance: dict[str, str]) -> Path:
    name = hashlib.sha256(repr(sorted(provenance.items())).encode()).hexdigest()[:32]
    return cache_folder() / "moments" / f"{name}.safetensors"
