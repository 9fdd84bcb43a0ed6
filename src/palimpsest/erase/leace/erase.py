"""Erase a concept from a model, at one layer or from its whole residual stream, as an `Edit`.

    edit = erase_concept(model, concept, layers=[9])            # one eraser after layer 9
    edit = erase_concept(model, concept)                        # concept scrubbing: every layer, each fitted on what is left
    edit = erase_concept(model, concept, layers=[9], kind="mlp_out", fold=True)      # in the weights, no hook
    with edit.applied(model): ...

The concept is read at one token of each text, and the eraser acts on every token. Of all that erase the concept, it is the one
that changes least what it acts on (`least="all"`: all tokens up to the read ones) or what it was read from (`least="read"`: theorem
4.3 as published, and dear where other tokens are far from the read ones). At one layer, what later layers bring back from other
tokens is not erased; scrubbing (Belrose et al. 2023, section 6) erases where the stream begins and after every layer, in order,
each eraser fitted on states that those below it have erased already.

Controls of equal rank, fitted at the same places: `control="random"` takes as many random directions out, around the same mean;
`control="permuted"` fits the same labels dealt to the wrong texts. What they do too is no effect of the concept.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from palimpsest.edit import Edit
from palimpsest.edit.payload import Payload
from palimpsest.erase.leace.concepts import Concept
from palimpsest.erase.leace.eraser import Eraser, random_eraser
from palimpsest.erase.leace.fitter import LeaceFitter
from palimpsest.erase.leace.fold import folded, output_map
from palimpsest.erase.leace.stream import Stream
from palimpsest.errors import SettingError, did_you_mean
from palimpsest.locate.answers import by_length
from palimpsest.model import Model, Site, Tap, pad
from palimpsest.runs import Progress

KINDS = ("resid_in", "attn_out", "value", "mlp_out", "resid_out")
LEAST = ("all", "read")
CONTROLS = ("none", "random", "permuted")


@dataclass(frozen=True, eq=False)
class Fitted:
    """The eraser of one site, and the fitter it is from."""

    site: Site
    eraser: Eraser
    fitter: LeaceFitter

    def note(self) -> dict[str, Any]:
        """What it did there, as plain data: a share of 0 says the states knew nothing of the concept.

        "share" is the part of the states' variance that is taken out, tr(R Sigma R^T) / tr Sigma with R = left right.
        """
        projection, sigma = self.eraser.projection, self.fitter.sigma_xx
        taken = float(((projection @ sigma) * projection).sum())
        return {
            "site": str(self.site),
            "states": self.fitter.count,
            "rank": self.eraser.rank,
            "share": taken / max(float(sigma.trace()), 1e-300),
        }


def erase_concept(
    model: Model,
    concept: Concept,
    *,
    layers: Sequence[int] | None = None,
    kind: str = "resid_out",
    least: str = "all",
    shrinkage: str = "auto",
    fold: bool = False,
    drop_constant: bool = False,
    control: str = "none",
    seed: int = 0,
    progress: Progress | None = None,
) -> Edit:
    """An edit that erases `concept` from `model`; the model itself is not changed.

    Args:
        model: read, never changed.
        concept: labelled texts.
        layers: where; when None the whole stream, before layer 0 and after every layer (or that `kind` of every layer).
        kind: a site of `KINDS`.
        least: whose change is kept least: "all" tokens of the texts, which the eraser acts on, or the "read" ones, as published.
        shrinkage: "auto", "oas" or "none": see `palimpsest.erase.leace.fitter`.
        fold: write it into weights instead of hooks, where that is exact.
        drop_constant: see `palimpsest.erase.leace.fold`.
        control: "none", or a control of equal rank.
        seed: of the control.
        progress: called with (sites done, sites, label).

    Raises:
        InputError: states are not finite (it says which text and where), or of one class only.
        SettingError: an unknown kind, control or shrinkage, or no such layer.
        EditError: it cannot be folded exactly.
    """
    _check(kind, control, least, fold, drop_constant)
    places = sites_of(model, layers, kind)
    if fold:
        for site in places:
            output_map(model, site)  # before the work, not after it
    texts = concept.permuted(seed=seed) if control == "permuted" else concept
    payloads: list[Payload] = []
    notes = []
    for fitted in fit_erasers(
        model,
        texts,
        places,
        least=least,
        shrinkage=shrinkage,
        drop_constant=drop_constant,
        progress=progress,
        random=_seed(control, seed),
    ):
        if fold:
            payloads += folded(model, fitted.site, fitted.eraser, drop_constant=drop_constant)
        else:
            payloads.append(fitted.eraser.hook(fitted.site))
        notes.append(fitted.note())
    settings: Mapping[str, Any] = {
        "concept": concept.name,
        "classes": concept.sizes,
        "layers": "whole stream" if layers is None else sorted(set(layers)),
        "kind": kind,
        "least": least,
        "shrinkage": shrinkage,
        "fold": fold,
        "drop_constant": drop_constant,
        "control": control,
        "seed": seed,
    }
    return Edit.made_for(model, "leace", tuple(payloads), settings=settings, notes={"sites": notes})


def fit_erasers(
    model: Model,
    concept: Concept,
    sites: Sequence[Site],
    *,
    least: str = "all",
    shrinkage: str = "auto",
    drop_constant: bool = False,
    random: int | None = None,
    progress: Progress | None = None,
) -> list[Fitted]:
    """The eraser of every site, each fitted on states that those before it have erased.

    Warns where the labelled texts are no more than a state has dimensions: what they say of other texts is then mostly noise.

    Args:
        model, concept, least, shrinkage, progress: as in `erase_concept`.
        drop_constant: whether those before act without their constants, as they will when they are folded so.
        sites: in the order of the forward pass.
        random: seed of random erasers of equal rank instead.
    """
    stream, found, taps = Stream(model, concept), list[Fitted](), list[Tap]()
    if least == "all" and len(concept.texts) <= model.anatomy.width:  # the fitter warns of the read tokens itself
        warnings.warn(
            f"{len(concept.texts)} labelled texts are no more than the {model.anatomy.width} dimensions of a state: their "
            f"covariance with the concept is taken out exactly, but says little of other texts; give more texts.",
            UserWarning,
            stacklevel=3,
        )
    for i, site in enumerate(sites):
        fitter = LeaceFitter(model.anatomy.width, concept.classes, place=f"states at {site}")
        for states, labels, every in stream.read(site, taps):
            fitter.update(states, labels)
            if least == "all":
                fitter.surround(every)
        eraser = fitter.eraser(shrinkage)
        if random is not None:
            eraser = random_eraser(fitter.acted_on.mean, min(len(concept.classes) - 1, fitter.width), seed=random + i)
        found.append(Fitted(site, eraser, fitter))
        taps.append((eraser.without_constant() if drop_constant else eraser).hook(site).tap(1.0))
        if progress:
            progress(i + 1, len(sites), "erasers")
    return found


@torch.no_grad()
def states_of(
    model: Model, concept: Concept, sites: Sequence[Site]
) -> tuple[dict[Site, torch.Tensor], tuple[str, ...], tuple[str, ...]]:
    """States of every text at each site on the model as it is now, with labels and groups, for probes; in float64."""
    rows = [text.ids(model) for text in concept.texts]
    parts: dict[Site, list[torch.Tensor]] = {site: [] for site in sites}
    order: list[int] = []
    for chosen in by_length([len(row) for row in rows]):
        batch = pad([rows[i] for i in chosen])
        with model.evaluating():
            states = model.record(batch, list(sites))
        for site in sites:
            parts[site].append(states[site][torch.arange(len(chosen)), batch.last].cpu().double())
        order += chosen
    labels = tuple(concept.texts[i].label for i in order)
    groups = tuple(concept.texts[i].group or concept.texts[i].text for i in order)
    return {site: torch.cat(found) for site, found in parts.items()}, labels, groups


def sites_of(model: Model, layers: Sequence[int] | None, kind: str) -> tuple[Site, ...]:
    """Where erasers go, in the order of the forward pass; raises `SettingError` when a layer does not exist or none is named."""
    if layers is None:
        whole = tuple(Site(kind, layer) for layer in range(model.n_layers))
        return (Site("resid_in", 0), *whole) if kind == "resid_out" else whole
    if not layers:
        raise SettingError("An eraser needs at least one layer; leave layers out to erase from the whole stream.")
    return tuple(Site(kind, model.anatomy.check_layer(layer)) for layer in sorted(set(layers)))


def _seed(control: str, seed: int) -> int | None:
    return seed if control == "random" else None


def _check(kind: str, control: str, least: str, fold: bool, drop_constant: bool) -> None:
    if kind not in KINDS:
        raise SettingError(f"An eraser has no place at {kind!r}.{did_you_mean(kind, KINDS)}")
    if control not in CONTROLS:
        raise SettingError(f"There is no control {control!r}.{did_you_mean(control, CONTROLS)}")
    if least not in LEAST:
        raise SettingError(
            f"The least change is that of all tokens or of the read ones, got {least!r}.{did_you_mean(least, LEAST)}"
        )
    if drop_constant and not fold:
        raise SettingError("drop_constant is about folding into weights; set fold=True as well, or leave it out.")
