"""The grid: one run of a prompt, with one site at one (token, layer) put to what it was in another run, for all of them.

    base     the run that is changed        corrupted, for a restoration; clean, for a lesion
    donor    where the values come from     clean, for a restoration; corrupted, mean, zero ... for a lesion

    kind     what is put                                            at layer l with a window of w
    state    the residual stream after the layer                    layer l
    mlp      the output of the MLP                                  layers [max(0, l - w // 2), min(L, l + ceil(w / 2)))
    attn     the output of the attention                            the same

For w = 10 these are layers l - 5 to l + 4, as in the code of Meng et al. (the paper says l - 4 to l + 5). With `severed`,
the outputs of all later MLPs (or attentions) at that token are held at their values of the base run, so that what the
patched site does through them is cut: what remains is its effect along the other paths (their figure 3).

Only what can differ from the base run is computed, exactly:

    layers     a run starts at the first patched layer, from the base run's residual stream
    tokens     it begins at the patched token and reads the cached keys and values of those before it
    cells      patches of one token at several layers share a batch, which starts at the lowest of them
    prompts    stand right-aligned, so that all that have as many tokens left share a batch, without padding
    logits     the last token's, and of these the scored tokens' log-probabilities
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.errors import SettingError, did_you_mean
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Batch, Model, Prefix, Site, Tap
from palimpsest.runs import Progress

SITES = {"state": "resid_out", "mlp": "mlp_out", "attn": "attn_out"}
BATCH_TOKENS = 4096  # of one run, cached ones included: each costs its keys and values, or its activations
WEIGHT_BOUND = 64  # tokens in a run below which it takes about as long as reading the weights does


@dataclass(frozen=True)
class Patch:
    """What is put where.

    Attributes:
        kind: "state", "mlp" or "attn".
        window: layers patched together; 1 for a state.
        severed: None, "mlp" or "attn": whose later outputs at the token are held at the base run's.
    """

    kind: str = "state"
    window: int = 1
    severed: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in SITES:
            raise SettingError(
                f"A patch has a kind of {', '.join(SITES)}, got {self.kind!r}.{did_you_mean(self.kind, SITES)}"
            )
        if self.window < 1 or (self.kind == "state" and self.window != 1):
            raise SettingError(f"A window is 1 or more layers, and 1 for the kind 'state', got {self.window}.")
        if self.severed not in (None, "mlp", "attn"):
            raise SettingError(f"The severed path is 'mlp', 'attn' or None, got {self.severed!r}.")

    def layers(self, l: int, n_layers: int) -> range:
        """The layers patched for cell l."""
        if self.kind == "state":
            return range(l, l + 1)
        return range(max(0, l - self.window // 2), min(n_layers, l + (self.window + 1) // 2))

    def start(self, l: int, n_layers: int) -> int:
        """The first layer that runs for cell l."""
        return self.layers(l, n_layers)[0] + (self.kind == "state")

    def donor_sites(self, n_layers: int) -> list[Site]:
        """All sites that are patched in some cell."""
        return [Site(SITES[self.kind], l) for l in range(n_layers)]

    def base_sites(self, n_layers: int) -> list[Site]:
        """All sites of the base run that cells start from, or are held at."""
        return [Site("resid_in", 0), *(Site("resid_out", l) for l in range(n_layers)), *self.held_sites(n_layers)]

    def held_sites(self, n_layers: int) -> list[Site]:
        """All sites that are held in a severed path."""
        return [Site(SITES[self.severed], l) for l in range(n_layers)] if self.severed else []


@dataclass(frozen=True, eq=False)
class Ran:
    """A run of several rows that all end in the same column, with what was recorded of it.

    Attributes:
        batch: the rows.
        taps: what was done to their embeddings, as a function of the first column of a run.
        states: recorded tensors, of shape (rows, columns, width).
        log_p: log-probabilities of the scored tokens after the last column.
    """

    batch: Batch
    taps: Callable[[int], Sequence[Tap]]
    states: dict[Site, Float[Tensor, "rows columns width"]]
    log_p: Float[np.ndarray, "rows scored"]


@torch.no_grad()
def run_all(
    model: Model,
    batch: Batch,
    sites: Sequence[Site],
    scored: Int[Tensor, "rows scored"],
    *,
    taps: Callable[[int], Sequence[Tap]] = lambda first: (),
) -> Ran:
    """Run whole rows once, keeping the tensors at `sites`."""
    kept: dict[Site, Tensor] = {}
    keep = [Tap(site, lambda tensor, site=site: kept.update({site: tensor.clone()})) for site in sites]  # type: ignore[misc]
    at = torch.full((len(batch), 1), batch.ids.shape[1] - 1, device=model.device)
    log_p = score(model.run(batch, at=at, taps=[*taps(0), *keep]), scored)
    return Ran(batch, taps, kept, log_p)


def score(
    logits: Float[Tensor, "rows one vocabulary"], scored: Int[Tensor, "rows scored"]
) -> Float[np.ndarray, "rows scored"]:
    """Log-probabilities of the scored tokens of each row."""
    exact = at_least_float32(logits[:, 0])
    log_p = exact.gather(1, scored.to(exact.device)) - exact.logsumexp(-1, keepdim=True)
    return log_p.double().cpu().numpy()


@torch.no_grad()
def patch_grid(
    model: Model,
    patch: Patch,
    base: Ran,
    donor: dict[Site, Float[Tensor, "donors columns width"]],
    *,
    rows: Sequence[tuple[int, int]],
    first: Sequence[int],
    scored: Int[Tensor, "rows scored"],
    layers: Sequence[int] | None = None,
    only: Sequence[Sequence[int]] | None = None,
    held: dict[Site, Float[Tensor, "bases columns width"]] | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> Float[np.ndarray, "rows columns layers scored"]:
    """Log-probabilities of the scored tokens with the site of every cell put to the donor's value.

    Args:
        model: read, never changed.
        patch: what is put.
        base: the run that is changed, with the states `Patch.base_sites` names.
        donor: the values at `Patch.donor_sites`; its columns are those of `base`.
        rows: (row of base, row of donor) of every row of the result.
        first: per row, the first column that is patched; nothing before it is computed, and the result there is the base's.
        scored: per row, the tokens whose log-probabilities are wanted.
        layers: l of the cells; all when None.
        only: per row, the columns that are wanted; the result is NaN in all others. All are when None.
        held: values at which a severed path is held when they are not the base run's own; then the layers below a patch are
            held too, and nothing of them can be skipped.
        batch_tokens: largest number of tokens of one run, with those read from the cache (a single row may exceed it). The
            base run and its prefix hold all their rows at once, whatever it is.
        progress: called with (cells done, cells in all, label).

    Source: the grid of Meng et al. 2022, section 2 and appendix B.2 and B.5; the savings are shown in `bench/trace.py`.
    """
    cells = list(range(model.n_layers)) if layers is None else list(layers)
    columns = base.batch.ids.shape[1]
    of_base = torch.tensor([row for row, _ in rows], device=model.device)
    of_donor = torch.tensor([row for _, row in rows], device=model.device)
    begins = np.array(first)
    result = np.repeat(base.log_p[of_base.cpu().numpy()][:, None, None], columns, axis=1).repeat(len(cells), axis=2)
    wanted = np.ones((len(rows), columns), dtype=bool)
    if only is not None:
        wanted[:] = [[column in some for column in range(columns)] for some in only]
        result[~wanted] = np.nan
    wanted &= begins[:, None] <= np.arange(columns)
    swept = np.flatnonzero(wanted.any(axis=0)).tolist()
    prefixes = model.run_prefixes(base.batch, swept, taps=base.taps) if swept else iter(())
    done, total = 0, int(wanted.sum()) * len(cells)
    for column, prefix in zip(swept, prefixes, strict=True):
        active = np.flatnonzero(wanted[:, column])
        tokens = columns - column
        room_for = max(1, batch_tokens // columns)
        for some in np.array_split(active, ceil(len(active) / room_for)):
            room = max(1, room_for // len(some))
            together = min(room, _layers_together(model.n_layers, len(some) * tokens))
            for begin in range(0, len(cells), together):
                group = cells[begin : begin + together]
                which = torch.from_numpy(some).to(model.device)
                found = _patched(
                    model,
                    patch,
                    base,
                    donor,
                    held,
                    prefix,
                    column,
                    group,
                    of_base[which],
                    of_donor[which],
                    scored[some],
                )
                result[some, column, begin : begin + len(group)] = found.transpose(1, 0, 2)
                done += len(some) * len(group)
                if progress:
                    progress(done, total, f"{patch.kind} patches")
    return result


def _layers_together(n_layers: int, tokens: int) -> int:
    """How many layers share a batch, each of them `tokens` tokens.

    G layers that start with the lowest of them compute (G - 1) / 2 layers too many each, of about L / 2; a run of few
    tokens takes as long as reading the weights. The least of (L + G) (1 + W / (G tokens)) is at G = sqrt(L W / tokens).
    """
    return ceil(sqrt(n_layers * WEIGHT_BOUND / tokens))


def _patched(
    model: Model,
    patch: Patch,
    base: Ran,
    donor: dict[Site, Tensor],
    held: dict[Site, Tensor] | None,
    prefix: Prefix,
    column: int,
    cells: Sequence[int],
    of_base: Int[Tensor, "some"],
    of_donor: Int[Tensor, "some"],
    scored: Int[Tensor, "some scored"],
) -> Float[np.ndarray, "cells some scored"]:
    """One run: `some` rows for each of the cells, patched at `column`, which is the first that runs."""
    n, n_layers = len(of_base), model.n_layers
    start = 0 if held else min(patch.start(l, n_layers) for l in cells)
    repeated = of_base.repeat(len(cells))
    entering = Site("resid_in", 0) if start == 0 else Site("resid_out", start - 1)
    resid = base.states[entering][repeated, column:]
    puts: dict[Site, list[tuple[slice, Tensor]]] = {}
    for i, l in enumerate(cells):
        mine, window = slice(i * n, (i + 1) * n), patch.layers(l, n_layers)
        for site in (Site(SITES[patch.kind], at) for at in window):
            puts.setdefault(site, []).append((mine, donor[site][of_donor, column]))
        for site in (Site(SITES[patch.severed], at) for at in range(start, n_layers)) if patch.severed else ():
            if site.kind != SITES[patch.kind] or site.layer not in window:
                puts.setdefault(site, []).append((mine, (held or base.states)[site][of_base, column]))
    at = torch.full((len(repeated), 1), base.batch.ids.shape[1] - 1, device=model.device)
    logits = model.run(
        base.batch.take(repeated.to(base.batch.ids.device)),
        start=start,
        resid=resid,
        prefix=prefix.take(repeated, start=start),
        at=at,
        taps=[Tap(site, _putting(values)) for site, values in puts.items()],
    )
    return score(logits, scored.repeat(len(cells), 1)).reshape(len(cells), n, -1)


def _putting(values: Sequence[tuple[slice, Tensor]]) -> Callable[[Tensor], Tensor]:
    """Puts each value into the first column of its rows."""

    def function(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        for rows, value in values:
            changed[rows, 0] = value.to(changed)
        return changed

    return function
