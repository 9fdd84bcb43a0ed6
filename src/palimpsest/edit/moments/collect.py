"""Collect C = (1 / n) sum of k k^T: one pass over a text for all layers, which a kill only interrupts.

    for each batch of documents:    run up to the deepest layer asked for
        for each layer:             S_l += k^T k      (product in the model's precision, float32 at least; S_l in float64)

The published code reads the text once a layer: for layers 5 to 9 that is 6 + 7 + 8 + 9 + 10 = 40 layer-passes instead of 10.

With `resume`, the sums and the number of batches they hold are written to a file from time to time, and a later call with the
same model, text and budget continues there. Sums are stored as they are, so the result is the same bit for bit.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from torch import Tensor

from palimpsest.edit.moments.moment import SecondMoment
from palimpsest.edit.moments.partial_sums import PartialSums
from palimpsest.edit.moments.provenance import DOCUMENT_TOKENS, TOKENS_PER_KEY_WIDTH, provenance_of, widths_of
from palimpsest.edit.moments.triangle import add_outer, mirror
from palimpsest.errors import InputError, SettingError
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Batch, Model, Site, pad
from palimpsest.runs import Progress, check_writable

BATCH_TOKENS = 2048  # padding counted
BATCHES_SORTED = 8  # how many batches' worth of documents are sorted by length at a time
SECONDS_BETWEEN_SAVES = 30.0  # so that saving costs little, whatever the model and the machine


def collect_moments(
    model: Model,
    layers: Sequence[int],
    text: str,
    *,
    tokens: int | None = None,
    progress: Progress | None = None,
    resume: Path | None = None,
    save_every: int | None = None,
) -> dict[int, SecondMoment]:
    """Second moments of the keys of several layers in one pass.

    Args:
        model: read, never changed.
        layers: which down-projections.
        text: plain text; blank lines separate documents.
        tokens: how many tokens to read, ten times the key width when None; all of the text when it is shorter.
        progress: called with (tokens done, tokens to do, label).
        resume: a file for the partial sums: continued from where it fits this call, and removed at the end.
        save_every: tokens between two savings of it; half a minute of work when None.

    Raises:
        InputError: the text is empty.
        SettingError: no layer is named, or one is out of range.
        AnatomyError: a layer has no down-projection.
        OutputError: the file for the partial sums cannot be written.
    """
    budget = token_budget(model, layers, tokens)
    cards = provenance_of(model, layers, text, budget)
    sums = PartialSums.begin(widths_of(model, layers), cards, (BATCH_TOKENS, BATCHES_SORTED))
    if resume is not None:
        check_writable(resume.parent)
        sums.continue_from(resume)
    saved_tokens, saved_at = sums.count, time.monotonic()
    for batch in islice(_batches(model, text, budget), sums.batches, None):
        for layer, keys in _keys(model, layers, batch).items():
            add_outer(sums.on(layer, keys.device), keys)
        sums.batches += 1
        sums.count += int(batch.mask.sum())
        if progress:
            progress(min(sums.count, budget), budget, "second moments")
        due = (
            time.monotonic() - saved_at >= SECONDS_BETWEEN_SAVES
            if save_every is None
            else sums.count - saved_tokens >= save_every
        )
        if resume is not None and due:
            sums.save(resume)
            saved_tokens, saved_at = sums.count, time.monotonic()
    if not sums.count:
        raise InputError("The text for second moments is empty; give some plain text.")
    moments = {
        layer: SecondMoment(mirror(total.cpu()) / sums.count, sums.count, cards[layer])
        for layer, total in sums.totals.items()
    }
    if resume is not None:
        resume.unlink(missing_ok=True)
    return moments


def token_budget(model: Model, layers: Sequence[int], tokens: int | None) -> int:
    """How many tokens to read: what was asked for, or ten times the key width."""
    if not layers:
        raise SettingError("Second moments were asked for no layer; name at least one.")
    return tokens or TOKENS_PER_KEY_WIDTH * max(widths_of(model, layers).values())


def _keys(model: Model, layers: Sequence[int], batch: Batch) -> dict[int, Tensor]:
    """The keys of every token of a batch at each layer, without padding."""
    sites = {layer: Site("key", layer) for layer in layers}
    with model.evaluating():
        states = model.record(batch, list(sites.values()))
    keep = batch.mask.bool()
    return {layer: at_least_float32(states[site][keep.to(states[site].device)]) for layer, site in sites.items()}


def _batches(model: Model, text: str, budget: int) -> Iterator[Batch]:
    """Documents cut to `DOCUMENT_TOKENS`, `budget` tokens in all, in batches of those alike in length."""
    rows: list[list[int]] = []
    for ids in _documents(model, text, budget):
        rows.append(ids)
        if sum(map(len, rows)) >= BATCHES_SORTED * BATCH_TOKENS:
            yield from _by_length(rows)
            rows = []
    yield from _by_length(rows)


def _documents(model: Model, text: str, budget: int) -> Iterator[list[int]]:
    longest = min(DOCUMENT_TOKENS, model.context or DOCUMENT_TOKENS)
    for document in text.split("\n\n"):
        if budget <= 0:
            return
        ids = model.tokenizer(document.strip()).input_ids[: min(longest, budget)] if document.strip() else []
        if ids:
            yield ids
        budget -= len(ids)


def _by_length(rows: list[list[int]]) -> Iterator[Batch]:
    """All rows, shortest first, so that little of a batch is padding."""
    group: list[list[int]] = []
    for row in sorted(rows, key=len):
        if group and len(row) * (len(group) + 1) > BATCH_TOKENS:
            yield pad(group)
            group = []
        group.append(row)
    if group:
        yield pad(group)
