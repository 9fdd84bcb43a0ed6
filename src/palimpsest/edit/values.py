"""Values: the v* that makes the model say the new answer, for one fact or for thousands.

`search` holds the optimisation. Here facts are put together so that little is padded and memory stays bounded: facts are
sorted by the number of tokens that a step computes, cut into batches, searched, and handed back in the order they came.
What has been found can be kept on disk, so that work that was killed goes on where it stopped:

    found = find_values(model, Site("resid_out", 8), facts, contexts, norms, settings, kept=Kept(folder, weights))

A value depends on the weights, the site, the fact, the contexts and the settings; all of them are in the name it is kept by.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save as to_bytes

from palimpsest.edit.contexts import BARE
from palimpsest.edit.keys import edited_token
from palimpsest.edit.search import Found, Term, ValueSettings, search
from palimpsest.errors import FactError
from palimpsest.facts import Fact
from palimpsest.model import Model, Site
from palimpsest.runs import Progress, atomic_write

TOGETHER = 32  # facts searched in one batch; more gain nothing on two cores and little on an accelerator
BATCH_TOKENS = 4096  # columns x rows that a step computes, which bounds the activations kept for the gradient
BATCH_ANSWERS = 1024  # positions whose logits are taken, which bounds them
BATCH_BEFORE = 16_384  # columns before the edited token x rows, whose keys and values are cached


PUBLISHED = ValueSettings()


class Kept:
    """Values in a folder, one file a batch, each by the name of everything it depends on.

    Args:
        folder: made when the first value is kept.
        weights: what identifies the weights they are searched on.
    """

    def __init__(self, folder: Path, weights: str) -> None:
        self.folder, self.weights = folder, weights

    @cached_property
    def _at_hand(self) -> dict[str, Path]:
        places: dict[str, Path] = {}
        for path in sorted(self.folder.glob("values-*.safetensors")):
            with safe_open(str(path), framework="pt") as file:
                places |= dict.fromkeys(file.keys(), path)
        return places

    def name(self, *parts: object) -> str:
        """The name of a value that depends on the weights and on `parts`."""
        return hashlib.sha256(json.dumps([self.weights, *parts], sort_keys=True).encode()).hexdigest()

    def get(self, name: str) -> Found | None:
        """The value of that name, or None."""
        path = self._at_hand.get(name)
        if path is None:
            return None
        with safe_open(str(path), framework="pt") as file:
            return Found(file.get_tensor(name), **json.loads(file.metadata()[name]))

    def put(self, found: dict[str, Found]) -> None:
        """Keep these, in one file written whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"values-{min(found)[:32]}.safetensors"
        notes = {
            name: json.dumps({k: v for k, v in asdict(one).items() if k != "delta"}) for name, one in found.items()
        }
        atomic_write(path, to_bytes({name: one.delta.cpu() for name, one in found.items()}, metadata=notes))
        self._at_hand.update(dict.fromkeys(found, path))


def find_values(
    model: Model,
    site: Site,
    facts: Sequence[Fact],
    contexts: Sequence[str],
    norms: Sequence[float],
    settings: ValueSettings = PUBLISHED,
    *,
    token: str = "subject_last",
    groups: Sequence[Sequence[int]] | None = None,
    kept: Kept | None = None,
    progress: Progress | None = None,
    term: Term | None = None,
) -> list[Found]:
    """delta of every fact, or of every group of facts that share one; the same as one search at a time.

    Args:
        model: read, never changed.
        site: what carries delta: `value` (ROME) or `resid_out` (MEMIT) of a layer.
        facts: each with a `target_new`.
        contexts: texts before the prompt, the bare one ("") among them.
        norms: |v| of each group, the scale of the decay and of the clamp.
        settings: of the search.
        token: which token carries delta; a role of `keys.TOKENS`.
        groups: lists of indices into `facts`; every fact by itself when None.
        kept: where values are looked up and kept.
        progress: called with (groups done, groups, label).
        term: a further term of the loss.

    Returns:
        one `Found` a group.

    Raises:
        FactError: a fact has no `target_new`.
        EditError: a loss is not finite.
    """
    groups = [[i] for i in range(len(facts))] if groups is None else groups
    for fact in facts:
        if fact.target_new is None:
            raise FactError(f"The fact {fact.id} ({fact.text!r}) has no target_new; an edit needs the answer to write.")
    members = [tuple(facts[i] for i in group) for group in groups]
    names = [""] * len(groups)
    found: dict[int, Found] = {}
    if kept is not None:
        shared = [str(site), token, asdict(settings), list(contexts), *([term.card] if term else [])]
        for g, group in enumerate(members):
            # rounded: the last bits of a norm depend on how many texts were run together
            names[g] = kept.name(shared, [fact.to_json() for fact in group], f"{norms[g]:.5g}")
            at_hand = kept.get(names[g])
            if at_hand is not None:
                found[g] = replace(at_hand, delta=at_hand.delta.to(model.device))
    wanted = [g for g in range(len(groups)) if g not in found]
    for batch in _batches(model, [members[g] for g in wanted], len(contexts), token):
        these = [wanted[i] for i in batch]
        own = [norms[g] for g in these]
        results = search(model, site, [members[g] for g in these], contexts, own, settings, token, term)
        found |= dict(zip(these, results, strict=True))
        if kept is not None:
            kept.put({names[g]: found[g] for g in these})
        if progress and len(groups) > 1:
            progress(len(found), len(groups), "values")
    return [found[g] for g in range(len(groups))]


def _batches(model: Model, groups: Sequence[tuple[Fact, ...]], contexts: int, token: str) -> Iterator[list[int]]:
    """Indices of groups that are searched together: alike in length, and bounded in what a step computes."""
    sizes = [[_size(model, fact, token) for fact in group] for group in groups]
    # (columns from the edited token on, columns before it)
    order = sorted(range(len(groups)), key=lambda g: (max(s[0] for s in sizes[g]), max(s[1] for s in sizes[g])))
    batch: list[int] = []
    rows = 0
    for g in order:
        more = rows + len(groups[g]) * (contexts + 1)
        columns = max(s[0] for s in sizes[g])  # sorted: the longest so far
        before, answers = (max(max(s[j] for s in sizes[i]) for i in [*batch, g]) for j in (1, 2))
        full = more * columns > BATCH_TOKENS or more * answers > BATCH_ANSWERS or more * before > BATCH_BEFORE
        if batch and (full or len(batch) == TOGETHER):
            yield batch
            batch, rows, more = [], 0, len(groups[g]) * (contexts + 1)
        batch.append(g)
        rows = more
    if batch:
        yield batch


def _size(model: Model, fact: Fact, token: str) -> tuple[int, int, int]:
    """Of the bare prompt with its answer: tokens from the edited one on, tokens before it, tokens of the answer."""
    _, at = edited_token(model, BARE, fact, token)
    whole, begin = model.encode_answer(fact.text, str(fact.target_new))
    if begin <= at:
        raise FactError(f"The subject of {fact.text!r} ends after its prompt does; check the prompt.")
    return len(whole) - at, at, len(whole) - begin
