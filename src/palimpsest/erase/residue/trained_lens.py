"""A trained lens: the logit lens after a map, one a layer, that undoes what later layers do on the average.

    logits(l) = W_U norm(A_l h_l + b_l)

The tuned lens (Belrose et al. 2023, arXiv 2303.08112, section 3) trains A_l and b_l by gradient descent on the KL divergence
from the model's final distribution. Here they are the closed form of a simpler aim, ridge regression of the final state on the
state after layer l over the tokens of a plain text:

    A_l, b_l = argmin  sum over tokens |h_L - A h_l - b|^2 / |h_L|^2  +  lambda |A|^2

with lambda a thousandth of the mean square of h_l, summed over the tokens: one pass over the text and one solve a layer,
seconds instead of hours, and exact. First tokens of documents are left out, because many networks park huge states there. What
it gives up is said by `quality`: the KL divergence from the final distribution at each layer, on text it was not fitted on,
beside that of the plain lens. Early layers keep answers in another basis than the output's, where the plain lens misses them;
an editor that pushes the old answer out of the plain lens only is caught here.

The maps are kept in the user's cache under a hash of all weights, the text and the budget. Text must be of the language the
model reads: pass text of the world for a model of the made world.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from palimpsest.erase.residue.lens import LensReader, check_paraphrases
from palimpsest.erase.residue.pair import Pair
from palimpsest.erase.residue.states import PARAPHRASES
from palimpsest.errors import InputError, SettingError
from palimpsest.facts import shipped_text
from palimpsest.locate.precision import at_least_float32
from palimpsest.locate.reading.lens import decode
from palimpsest.model import Batch, Model, Site, pad
from palimpsest.model.smollm2 import cache_folder
from palimpsest.runs import Progress, atomic_path, check_writable

DOCUMENT_TOKENS, BATCH_ROWS = 96, 16
TOKENS_PER_WIDTH = 12  # of the stream: ten times as many equations as unknowns, after a tenth is held out
RIDGE = 1e-3
HELD_OUT = 10  # every tenth document measures `quality`
QUALITY_TOKENS = 256


@dataclass(frozen=True, eq=False)
class Translators:
    """The maps of every layer, and how well they do.

    Attributes:
        matrix, shift: A_l and b_l.
        quality: mean KL divergence from the final distribution on held-out text, in nats: of the plain lens, of this one.
        tokens: how many the maps were fitted on.
    """

    matrix: Float[Tensor, "layers width width"]
    shift: Float[Tensor, "layers width"]
    quality: Float[Tensor, "lenses layers"]
    tokens: int


@dataclass(frozen=True)
class TrainedLens:
    """The readout.

    Attributes:
        text: plain text of what the model reads, documents separated by blank lines or lines; the shipped English when None.
        tokens: how many are read; 12 times the width when None, all of the text where it is shorter.
        paraphrases: how many are read beside the prompt.
        keep: whether the maps are kept in the user's cache.
        progress: told while the text is read.
    """

    text: str | None = None
    tokens: int | None = None
    paraphrases: int = PARAPHRASES
    keep: bool = True
    progress: Progress | None = field(default=None, compare=False)
    name: str = "trained lens"

    def __post_init__(self) -> None:
        check_paraphrases(self.paraphrases)
        if self.tokens is not None and self.tokens < 1:
            raise SettingError(f"A trained lens needs tokens to be fitted on, got tokens={self.tokens}.")

    def fit(self, model: Model, pairs: Sequence[Pair]) -> "TrainedLensReader":
        """Fit the maps to the model as it stands now, or read them from the cache."""
        text = shipped_text() if self.text is None else self.text
        budget = self.tokens or TOKENS_PER_WIDTH * model.anatomy.width
        if not self.keep:
            return TrainedLensReader(self.name, self.paraphrases, translators(model, text, budget, self.progress))
        path = _kept_at(model, text, budget)
        found = _load(path)
        if found is None:
            found = translators(model, text, budget, self.progress)
            _save(found, path)
        return TrainedLensReader(self.name, self.paraphrases, found)


class TrainedLensReader(LensReader):
    """Reads every layer through its map, the final norm and the head."""

    def __init__(self, name: str, paraphrases: int, maps: Translators) -> None:
        super().__init__(name, paraphrases)
        self.maps = maps

    def translated(self, states: Float[Tensor, "rows layers width"]) -> Float[Tensor, "rows layers width"]:
        """A_l h_l + b_l."""
        return torch.einsum("lij,rlj->rli", self.maps.matrix, states) + self.maps.shift


@torch.no_grad()
def translators(model: Model, text: str, tokens: int, progress: Progress | None = None) -> Translators:
    """Fit the maps of every layer in one pass over `text`.

    Raises:
        InputError: the text has fewer than two documents, or fewer tokens than a tenth of the width.
    """
    layers, width = model.n_layers, model.anatomy.width
    documents = _documents(model, text, tokens)
    if len(documents) < 2:
        raise InputError(f"A trained lens needs at least two documents of text, got {len(documents)}; give more text.")
    held = documents[:: min(HELD_OUT, len(documents))]
    fitted = [ids for i, ids in enumerate(documents) if i % min(HELD_OUT, len(documents))]
    count = sum(map(len, fitted))
    if count * 10 < width:
        raise InputError(
            f"A trained lens of width {width} needs at least {width // 10} tokens of text, got {count}; give more."
        )
    gram = torch.zeros(layers, width + 1, width + 1, dtype=torch.float64)
    cross = torch.zeros(layers, width + 1, width, dtype=torch.float64)
    done = 0
    for states in _states(model, fitted):
        ones = torch.ones(*states.shape[:2], 1, dtype=states.dtype)
        weight = 1 / states[-1].norm(dim=1)[:, None].clamp(min=1e-12)  # the norm keeps directions, so all count alike
        with_one = torch.cat([states, ones], dim=2) * weight
        gram += (with_one.mT @ with_one).double()
        cross += (with_one.mT @ (states[-1] * weight)).double()
        done += states.shape[1]
        if progress:
            progress(min(done, count), count, "trained lens")
    ridge = torch.zeros(layers, width + 1, dtype=torch.float64)
    ridge[:, :width] = RIDGE * gram.diagonal(dim1=1, dim2=2)[:, :width].mean(1, keepdim=True)
    jitter = 1e-10 * gram.diagonal(dim1=1, dim2=2).mean(1)
    solved = torch.linalg.solve(gram + torch.diag_embed(ridge + jitter[:, None]), cross)
    matrix, shift = solved[:, :width].mT.float().contiguous(), solved[:, width].float()
    matrix[-1], shift[-1] = torch.eye(width), 0.0
    found = Translators(matrix, shift, torch.zeros(2, layers), done)
    return Translators(matrix, shift, _quality(model, found, held), done)


def _quality(model: Model, maps: Translators, documents: Sequence[Sequence[int]]) -> Float[Tensor, "lenses layers"]:
    """Mean KL(final distribution | lens) by layer, of the plain and of the trained lens."""
    states = torch.cat(list(_states(model, documents)), dim=1)
    some = states[:, torch.linspace(0, states.shape[1] - 1, min(QUALITY_TOKENS, states.shape[1])).long()]
    moved = torch.einsum("lij,ltj->lti", maps.matrix, some) + maps.shift[:, None]
    final = _log_p(model, some[-1])
    divergence = [
        [(final.exp() * (final - _log_p(model, layer))).sum(1).mean() for layer in way] for way in (some, moved)
    ]
    return torch.tensor(divergence)


def _log_p(model: Model, states: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens vocabulary"]:
    here = states.to(model.device, model.anatomy.embedding.weight.dtype)  # type: ignore[arg-type]
    return torch.cat([part.log_softmax(-1).cpu() for part in decode(model, here)])


def _documents(model: Model, text: str, tokens: int) -> list[tuple[int, ...]]:
    """Documents as ids, cut at `DOCUMENT_TOKENS`, in order until there are enough tokens."""
    limit = min(DOCUMENT_TOKENS, model.context or DOCUMENT_TOKENS)
    found: list[tuple[int, ...]] = []
    have = 0
    for document in text.splitlines():
        if have >= tokens:
            break
        ids = tuple(model.tokenizer(document.strip()).input_ids)[:limit]
        if len(ids) > 1:
            found.append(ids)
            have += len(ids)
    return found


def _states(model: Model, documents: Sequence[Sequence[int]]) -> Iterator[Float[Tensor, "layers tokens width"]]:
    """Residual streams after every layer, all tokens of some documents at a time."""
    sites = [Site("resid_out", l) for l in range(model.n_layers)]
    ordered = sorted(documents, key=len)
    for begin in range(0, len(ordered), BATCH_ROWS):
        batch: Batch = pad(ordered[begin : begin + BATCH_ROWS])
        with model.evaluating():
            read = model.record(batch, sites)
        kept = batch.mask.bool()
        kept[:, 0] = False
        yield torch.stack([at_least_float32(read[site]).cpu()[kept] for site in sites])


def _kept_at(model: Model, text: str, tokens: int) -> Path:
    digest = hashlib.blake2b(
        f"{model.fingerprint()}{tokens}{RIDGE}".encode() + text.encode("utf-8", "replace"), digest_size=16
    )
    folder = cache_folder() / "lenses"
    return check_writable(folder) / f"{digest.hexdigest()}.safetensors"


def _save(maps: Translators, path: Path) -> None:
    with atomic_path(path) as temporary:
        tensors = {"matrix": maps.matrix, "shift": maps.shift, "quality": maps.quality}
        save_file(tensors | {"tokens": torch.tensor(maps.tokens)}, temporary)


def _load(path: Path) -> Translators | None:
    """What was kept, or None where nothing usable was."""
    if not path.is_file():
        return None
    try:
        kept = load_file(path)
        return Translators(kept["matrix"], kept["shift"], kept["quality"], int(kept["tokens"]))
    except (SafetensorError, KeyError, OSError):
        return None


def quality_table(maps: Translators) -> list[dict[str, object]]:
    """Rows for people: layer, KL of the plain and of the trained lens."""
    plain, trained = np.asarray(maps.quality)
    return [
        {"layer": l, "logit lens": float(a), "trained lens": float(b)}
        for l, (a, b) in enumerate(zip(plain, trained, strict=True))
    ]
