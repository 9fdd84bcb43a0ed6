"""Attention knock-out (Geva et al. 2023, sections 5 and 6): which edges carry what to the last token.

For a set of source positions C and a window of k layers around layer l, the last token's attention to C is set to zero in
every head of these layers (its score is minus infinity before the softmax, so the rest is weighted up to one), and the
answer's probability is read again:

    window(l) = { l - k // 2, ..., l - k // 2 + k - 1 }, clipped to the layers there are
    relative change     p(C, l) / p - 1         -1: the answer is gone; 0: nothing changed
    log change          log p(C, l) - log p     in nats

It is a lesion of edges, and of the direct ones only: what an earlier layer, or another token, has already carried over
stays. Other heads and layers may make up for it, so a small change does not say that an edge carries nothing.

Each source is compared with random sets of as many positions that are neither the subject's nor the first token (on which
many models park attention), and, along the layers, with the same window elsewhere.

Blocking the last token's attention changes nothing before it. So the prompt but its last token is run once, and each row
of a batch is one (source, layer): the last token alone, from the first layer of the first window in the batch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.errors import InputError, SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.locate.answers import prompt_and_token
from palimpsest.locate.precision import at_least_float32
from palimpsest.locate.reading.attention_edges import attention_blocked, check_attention_obeys
from palimpsest.locate.reading.profile import Profile, ask, nested
from palimpsest.locate.saving import save_json
from palimpsest.model import Model, Prefix, Site, align
from palimpsest.model.tokens import token_strings
from palimpsest.runs import Progress

SOURCES = ("subject", "subject_last", "other", "first", "last", "before")
ROWS = 64  # (source, layer) pairs run together


@dataclass(frozen=True, eq=False)
class Knockout:
    """What is left of one answer when the last token cannot look at some others in some layers.

    Attributes:
        fact: what was asked.
        answer: the answer whose first token is scored, as text.
        tokens: the prompt's tokens as text.
        subject: positions [first, end) of the subject's tokens.
        clean: p without a knock-out.
        sources: names of the sets of positions, of `SOURCES`.
        positions: the positions of each; empty where the prompt has none of that kind.
        log_p: log p(C, l), shape (sources, layers); NaN where a source is empty.
        control_positions: the random sets, each as large as "subject".
        control_log_p: log p of each, shape (controls, layers).
        settings: how it was made.
    """

    fact: Fact
    answer: str
    tokens: tuple[str, ...]
    subject: tuple[int, int]
    clean: float
    sources: tuple[str, ...]
    positions: tuple[tuple[int, ...], ...]
    log_p: Float[np.ndarray, "sources layers"]
    control_positions: tuple[tuple[int, ...], ...]
    control_log_p: Float[np.ndarray, "controls layers"]
    settings: dict[str, object]

    @property
    def log_change(self) -> Float[np.ndarray, "sources layers"]:
        """log p(C, l) - log p, in nats."""
        return self.log_p - np.log(self.clean)

    @property
    def effect(self) -> Float[np.ndarray, "sources layers"]:
        """p(C, l) / p - 1."""
        return np.expm1(self.log_change)

    @property
    def control_effect(self) -> Float[np.ndarray, "controls layers"]:
        """p(C, l) / p - 1 of each random set."""
        return np.expm1(self.control_log_p - np.log(self.clean))

    @property
    def control_range(self) -> tuple[Float[np.ndarray, "layers"], Float[np.ndarray, "layers"]]:
        """Smallest and largest effect among the random sets at each layer; NaN without any."""
        if not len(self.control_positions):
            nothing = np.full(self.log_p.shape[1], np.nan)
            return nothing, nothing
        return self.control_effect.min(axis=0), self.control_effect.max(axis=0)

    def to_json(self) -> dict[str, Any]:
        """As plain data; what a prompt has no tokens for is None."""
        low, high = self.control_range
        return {
            "fact": self.fact.to_json(),
            "answer": self.answer,
            "tokens": list(self.tokens),
            "subject": list(self.subject),
            "clean": self.clean,
            "sources": list(self.sources),
            "positions": [list(places) for places in self.positions],
            "effect": nested(self.effect),
            "log_change": nested(self.log_change),
            "control_positions": [list(places) for places in self.control_positions],
            "control_effect": nested(self.control_effect),
            "control_low": nested(low),
            "control_high": nested(high),
            "settings": self.settings,
        }

    def save(self, path: str) -> None:
        """Write `to_json` to a file, whole or not at all."""
        save_json(self.to_json(), path)

    def plot(self) -> object:
        """A matplotlib figure: the effect of each source over layers, the range of the random sets shaded."""
        from palimpsest.locate.reading.plot import plot_knockout

        return plot_knockout(self)


def knockout(
    model: Model,
    fact: Fact,
    *,
    window: int = 9,
    sources: Sequence[str] = SOURCES,
    answer: str | None = None,
    controls: int = 5,
    seed: int = 0,
    check: bool = True,
) -> Knockout:
    """Cut the last token off from each source, around each layer.

    Args:
        model: read, never changed.
        fact: whose prompt is read.
        window: layers cut together, k.
        sources: of "subject" (its tokens before the last one), "subject_last" (the last of these), "other" (tokens before
            the last that are neither the subject's nor the first), "first" (which is the subject's where it begins the
            prompt), "last" (the last token's attention to itself) and "before" (everything but itself).
        answer: scored by its first token; `target_true` when None, or the model's own first choice where there is none.
        controls: at most so many random sets; fewer where there are not so many different ones.
        seed: of the random sets.
        check: prove first that this network's attention obeys the mask (`check_attention_obeys`).

    Raises:
        SettingError: a window below 1, a negative number of controls, or an unknown source.
        InputError: the prompt has only one token, the subject is not in it, or the answer has no token.
        AnatomyError: the network takes no mask of attention that could be changed.
    """
    if window < 1:
        raise SettingError(f"A knock-out needs a window of at least one layer, got {window}.")
    if controls < 0:
        raise SettingError(f"A knock-out needs 0 or more control sets, got {controls}.")
    if not sources:
        raise SettingError(f"A knock-out needs at least one source, got none; choose of {', '.join(SOURCES)}.")
    for name in sources:
        if name not in SOURCES:
            raise SettingError(f"A knock-out has no source {name!r}.{did_you_mean(name, SOURCES)}")
    wanted = answer or fact.target_true
    encoded, token = prompt_and_token(model, fact.text, wanted) if wanted else (model.encode(fact.text), None)
    if len(encoded) < 2:
        raise InputError(f"The prompt {fact.text!r} is one token long; a knock-out needs a token before the last one.")
    subject = encoded.tokens_of(*fact.subject_span)
    roles = sources_of(subject, len(encoded))
    random = _random_sets(roles, controls, seed, fact)
    with torch.no_grad(), model.evaluating():
        if check:
            check_attention_obeys(model, encoded.ids)
        sets = sorted({places for places in [*(roles[name] for name in sources), *random] if places})
        clean, found, token = _grid(model, encoded.ids, sets, window, token)
    by_set = dict(zip(sets, found, strict=True))
    nothing = np.full(model.n_layers, np.nan)
    return Knockout(
        fact,
        model.tokenizer.decode([token]),
        tuple(token_strings(model.tokenizer, encoded.ids)),
        (subject[0], subject[-1] + 1),
        clean,
        tuple(sources),
        tuple(roles[name] for name in sources),
        np.stack([by_set.get(roles[name], nothing) for name in sources]),
        tuple(random),
        np.stack([by_set[places] for places in random]) if random else np.zeros((0, model.n_layers)),
        {"model": model.name, "window": window, "seed": seed, "score": "probability of the first token of the answer"},
    )


def knockout_profile(
    model: Model,
    facts: Sequence[Fact],
    *,
    window: int = 9,
    sources: Sequence[str] = SOURCES,
    controls: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> Profile:
    """Knock-outs of many facts, by source and layer.

    Curves are "relative/SOURCE" and "log/SOURCE", and "relative/control" and "log/control": each fact's mean over its random
    sets, of as many positions as its subject has. A fact without a source, or with too few other tokens for a control, has
    NaN there. `pairs` sets "subject" against the control; the others differ in size and have none.

    Args:
        model, window, sources, controls, seed: as in `knockout`.
        facts: unknown ones are measured and summarised apart, those that cannot be asked are listed.
        progress: called with (done, total, label).

    Raises:
        SettingError: as `knockout`.
        InputError: no fact could be asked.
        AnatomyError: as `knockout`.
    """
    asked, failures = ask(model, facts)
    kept: list[tuple[Knockout, bool]] = []
    for i, (fact, known) in enumerate(asked):
        try:
            settings: dict[str, Any] = {"window": window, "sources": sources, "controls": controls, "seed": seed}
            kept.append((knockout(model, fact, **settings, check=not kept), known))
        except SettingError:
            raise
        except InputError as error:
            failures.append((fact.id, str(error)))
        if progress:
            progress(i + 1, len(asked), "facts read")
    if not kept:
        reason = failures[0][1] if failures else "there are no facts"
        raise InputError(f"None of the {len(facts)} facts could be asked; the first reason: {reason}")
    values: dict[str, Float[np.ndarray, "facts layers"]] = {}
    nothing = np.full(model.n_layers, np.nan)
    for j, name in enumerate(sources):
        values[f"relative/{name}"] = np.stack([found.effect[j] for found, _ in kept])
        values[f"log/{name}"] = np.stack([found.log_change[j] for found, _ in kept])
    for name, change in (
        ("relative", [found.control_effect for found, _ in kept]),
        ("log", [found.control_log_p - np.log(found.clean) for found, _ in kept]),
    ):
        values[f"{name}/control"] = np.stack([each.mean(axis=0) if len(each) else nothing for each in change])
    return Profile(
        "attention knock-out",
        tuple(found.fact for found, _ in kept),
        tuple(known for _, known in kept),
        values,
        tuple((f"{name}/subject", f"{name}/control") for name in ("relative", "log")) if "subject" in sources else (),
        tuple(failures),
        {
            **kept[0][0].settings,
            "controls": controls,
            "subject_at_the_first_token": [found.fact.id for found, _ in kept if found.subject[0] == 0],
            "without_control": [found.fact.id for found, _ in kept if not found.control_positions],
        },
    )


def window_of(layer: int, window: int, n_layers: int) -> range:
    """The layers of the window around `layer`: [layer - k // 2, layer - k // 2 + k), clipped to [0, n_layers)."""
    return range(max(0, layer - window // 2), min(n_layers, layer - window // 2 + window))


def sources_of(subject: range, length: int) -> dict[str, tuple[int, ...]]:
    """The positions of each of `SOURCES` in a prompt of `length` tokens whose subject has the positions `subject`."""
    last = length - 1
    inside = tuple(t for t in subject if t < last)
    return {
        "subject": inside,
        "subject_last": inside[-1:] if subject[-1] < last else (),
        "other": tuple(t for t in range(1, last) if t not in subject),
        "first": (0,),
        "last": (last,),
        "before": tuple(range(last)),
    }


def _grid(
    model: Model, ids: tuple[int, ...], sets: Sequence[tuple[int, ...]], window: int, token: int | None
) -> tuple[float, Float[np.ndarray, "sets layers"], int]:
    """(clean p, log p(C, l), the token that was scored: the likeliest where `token` is None)."""
    n_layers, last = model.n_layers, len(ids) - 1
    one = align([ids], [0]).to(model.device)
    (prefix,) = model.run_prefixes(one, [last])
    sites = [Site("resid_out", l) for l in range(n_layers)]
    states = model.record(one, sites, prefix=prefix)
    clean_logits = at_least_float32(_last_column(model, ids, prefix, 1, n_layers, states[sites[-1]]))[0]
    token = int(clean_logits.argmax()) if token is None else token
    result = np.full((len(sets), n_layers), np.nan)
    jobs = [(i, l) for l in range(n_layers) for i in range(len(sets))]
    for begin in range(0, len(jobs), ROWS):
        chunk = jobs[begin : begin + ROWS]
        start = window_of(chunk[0][1], window, n_layers)[0]
        blocked = torch.zeros(n_layers, len(chunk), last + 1, dtype=torch.bool)
        for row, (i, l) in enumerate(chunk):
            for other in window_of(l, window, n_layers):
                blocked[other, row, list(sets[i])] = True
        resid = states[sites[start - 1]] if start else None
        with attention_blocked(model, blocked.to(model.device)):
            logits = at_least_float32(_last_column(model, ids, prefix, len(chunk), start, resid))
        log_p = logits[:, token] - logits.logsumexp(1)
        for (i, l), found in zip(chunk, log_p.cpu().double().tolist(), strict=True):
            result[i, l] = found
    return float(clean_logits.softmax(-1)[token]), result, token


def _last_column(
    model: Model, ids: tuple[int, ...], prefix: Prefix, rows: int, start: int, resid: Tensor | None
) -> Float[Tensor, "rows vocabulary"]:
    """Logits of the last token in `rows` copies of a prompt, from layer `start` on."""
    batch = align([ids] * rows, [0] * rows).to(model.device)
    copies = prefix.take(torch.zeros(rows, dtype=torch.long, device=model.device))
    at = torch.full((rows, 1), len(ids) - 1, device=model.device)
    entering = resid.expand(rows, -1, -1) if resid is not None else None
    return model.run(batch, start=start, resid=entering, prefix=copies, at=at)[:, 0]


def _random_sets(roles: dict[str, tuple[int, ...]], controls: int, seed: int, fact: Fact) -> list[tuple[int, ...]]:
    """Up to `controls` different random sets of "other" positions, each as large as the subject."""
    pool, size = roles["other"], len(roles["subject"])
    if not 0 < size <= len(pool) or not controls:
        return []
    if comb(len(pool), size) <= controls:
        return list(combinations(pool, size))
    digest = hashlib.blake2b(f"{seed}\0{fact.subject}\0{fact.prompt}".encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    drawn: set[tuple[int, ...]] = set()
    while len(drawn) < controls:
        drawn.add(tuple(sorted(generator.choice(pool, size, replace=False).tolist())))
    return sorted(drawn)
