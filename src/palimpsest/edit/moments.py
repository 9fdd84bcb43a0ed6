"""Second moments of keys: C = E[k k^T] at the input of a down-projection, over ordinary text.

C says which directions ordinary text uses; ROME and its successors write where it is small (Meng et al. 2022, section 3.1;
the statistic is not centred). One pass over the text serves every layer asked for: the pass stops after the deepest, and
each batch adds k^T k in the model's precision (float32 at least) to a float64 sum.

    moments = collect_moments(model, [9], shipped_text(), tokens=15_360)
    moments[9].solve(k)                  # C^-1 k, in float64
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from palimpsest.errors import EditError, InputError
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Batch, Model, Site, pad
from palimpsest.model.anatomy import in_out_features
from palimpsest.model.smollm2 import cache_folder
from palimpsest.runs import Progress, atomic_write, check_writable

DOCUMENT_TOKENS = 256  # longest piece of text read at once
BATCH_TOKENS = 2048
FORMAT = "palimpsest-moment/1"
TOKENS_PER_KEY_WIDTH = 10  # FastMEMIT (arXiv 2506.04226) found 2 to 10 times the key width enough


@dataclass(frozen=True)
class SecondMoment:
    """C = (1 / count) * sum of k k^T, with where it came from.

    Attributes:
        matrix: C in float64.
        count: number of keys (tokens) in it.
        provenance: layer, module, hash of the weights below it, hash of the text, dtype of the forward pass.
    """

    matrix: Float[Tensor, "d d"]
    count: int
    provenance: dict[str, str]

    @cached_property
    def factor(self) -> Float[Tensor, "d d"]:
        """Lower Cholesky factor of C; raises `EditError` when C is singular and says how many tokens it takes."""
        width = self.matrix.shape[0]
        factor, info = torch.linalg.cholesky_ex(self.matrix)
        if int(info) or not bool(torch.isfinite(factor).all()) or 0 < self.count < width:
            raise EditError(
                f"The second moment of {self.provenance.get('module', 'the keys')} is singular: it is {width} wide and was "
                f"measured on {self.count} tokens; measure it on at least {2 * width}, of varied text."
            )
        return factor

    def solve(self, k: Float[Tensor, "d"]) -> Float[Tensor, "d"]:
        """C^-1 k in float64 (float32 factorisations lose three digits here)."""
        return torch.cholesky_solve(k.double()[:, None], self.factor)[:, 0]

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue."""
        eigenvalues = torch.linalg.eigvalsh(self.matrix)
        return float(eigenvalues[-1] / eigenvalues[0].clamp(min=1e-300))

    @classmethod
    def identity(cls, width: int) -> "SecondMoment":
        """C = I, which leaves keys as they are."""
        return cls(torch.eye(width, dtype=torch.float64), 0, {"text": "identity"})


def collect_moments(
    model: Model,
    layers: Sequence[int],
    text: str,
    *,
    tokens: int | None = None,
    progress: Progress | None = None,
) -> dict[int, SecondMoment]:
    """Second moments of the keys of several layers in one pass.

    Args:
        model: read, never changed.
        layers: which down-projections.
        text: plain text; blank lines separate documents.
        tokens: how many tokens to read, ten times the key width when None; all of the text when it is shorter.
        progress: called with (tokens done, tokens to do, label).

    Raises:
        InputError: the text is empty.
        AnatomyError: a layer has no down-projection.
    """
    widths = {layer: in_out_features(model.anatomy.down(layer).module)[0] for layer in layers}
    budget = tokens or TOKENS_PER_KEY_WIDTH * max(widths.values())
    sums = {layer: torch.zeros(width, width, dtype=torch.float64) for layer, width in widths.items()}
    count = 0
    for batch in _batches(model, text, budget):
        keep = batch.mask.bool()
        with model.evaluating():
            states = model.record(batch, [Site("key", layer) for layer in layers])
        for layer in layers:
            keys = at_least_float32(states[Site("key", layer)][keep])
            sums[layer] += (keys.T @ keys).double().cpu()
        count += int(keep.sum())
        if progress:
            progress(min(count, budget), budget, "second moments")
    if not count:
        raise InputError("The text for second moments is empty; give some plain text.")
    return {
        layer: SecondMoment(sums[layer] / count, count, _provenance(model, layer, text, budget)) for layer in layers
    }


def cached_moments(
    model: Model, layers: Sequence[int], text: str, *, tokens: int | None = None, progress: Progress | None = None
) -> dict[int, SecondMoment]:
    """`collect_moments`, kept in the cache folder: the same weights, text and budget are never measured twice."""
    widths = {layer: in_out_features(model.anatomy.down(layer).module)[0] for layer in layers}
    budget = tokens or TOKENS_PER_KEY_WIDTH * max(widths.values())
    places = {layer: _cache_place(_provenance(model, layer, text, budget)) for layer in layers}
    missing = [layer for layer in layers if not places[layer].is_file()]
    if missing:
        for layer, moment in collect_moments(model, missing, text, tokens=budget, progress=progress).items():
            save_moment(moment, places[layer])
    return {layer: load_moment(places[layer]) for layer in layers}


def save_moment(moment: SecondMoment, path: Path) -> None:
    """One safetensors file, written whole or not at all."""
    check_writable(path.parent)
    card = {**moment.provenance, "count": str(moment.count), "format": FORMAT}
    atomic_write(path, to_bytes({"matrix": moment.matrix}, metadata=card))


def load_moment(path: Path) -> SecondMoment:
    """Read what `save_moment` wrote; raises `EditError` when it is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            card = dict(sorted((file.metadata() or {}).items()))  # the file has no order of its own
            if card.pop("format", None) != FORMAT:
                raise EditError(f"The file {path} holds no second moments of this version (format {FORMAT}).")
            return SecondMoment(file.get_tensor("matrix"), int(card.pop("count")), card)
    except (SafetensorError, KeyError, OSError) as error:
        raise EditError(
            f"The file of second moments {path} is damaged ({error}); delete it and it is measured again."
        ) from None


def _batches(model: Model, text: str, budget: int) -> Iterator[Batch]:
    """Documents in order, cut to `DOCUMENT_TOKENS`, in batches of about `BATCH_TOKENS`, `budget` tokens in all."""
    longest = min(DOCUMENT_TOKENS, model.context or DOCUMENT_TOKENS)
    rows: list[list[int]] = []
    size = 0
    for document in text.split("\n\n"):
        if budget <= 0:
            break
        ids = model.tokenizer(document.strip()).input_ids[: min(longest, budget)] if document.strip() else []
        if not ids:
            continue
        rows.append(ids)
        budget -= len(ids)
        size += len(ids)
        if size >= BATCH_TOKENS:
            yield pad(rows)
            rows, size = [], 0
    if rows:
        yield pad(rows)


def _provenance(model: Model, layer: int, text: str, budget: int) -> dict[str, str]:
    below = tuple(f"{block.block.path}." for block in model.anatomy.layers[layer + 1 :])
    paths = [path for path, _ in model.net.named_parameters() if not path.startswith(below)]
    provenance = {
        "module": model.anatomy.down(layer).path,
        "layer": str(layer),
        "weights": model.fingerprint(paths),
        "text": hashlib.sha256(text.encode()).hexdigest(),
        "tokens": str(budget),
        "document_tokens": str(DOCUMENT_TOKENS),
        "dtype": str(model.parameter(model.anatomy.down(layer).path + ".weight").dtype),
    }
    return dict(sorted(provenance.items()))


def _cache_place(provenance: dict[str, str]) -> Path:
    name = hashlib.sha256(repr(sorted(provenance.items())).encode()).hexdigest()[:32]
    return cache_folder() / "moments" / f"{name}.safetensors"
