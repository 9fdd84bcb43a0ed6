"""Causal tracing of states (Meng et al. 2022, section 2).

Three kinds of run of one prompt, each scored by the probability of one answer after the last token:

    clean                   p
    corrupted               p*              the subject's embeddings with noise
    corrupted, restored     p*(t, l)        and the residual stream after layer l at token t put back to its clean value

    total effect            TE = p - p*
    indirect effect         IE(t, l) = p*(t, l) - p*

IE says that the state at (t, l) suffices, in a corrupted context, to bring the answer back. It is a restoration, not a
lesion: it does not say that the state is necessary, nor that anything is stored there.

Each p* is a mean over S noise samples, all restored from the same corrupted runs. Only what can differ is computed: the
restored run starts at layer l + 1 and at token t, reading the cached corrupted keys and values of the tokens before it, and
tokens before the subject are not restored at all, since corruption cannot have changed them (their IE is exactly 0).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from palimpsest.errors import FactError, SettingError
from palimpsest.facts import Fact, read_facts
from palimpsest.locate.corruption import SPREADS, add_noise, embedding_spread, noise_draw
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, Prefix, Site, align
from palimpsest.model.tokens import Batch, token_strings
from palimpsest.runs import Progress


@dataclass(frozen=True, eq=False)
class Trace:
    """The indirect effect of restoring each state, with its uncertainty over noise samples.

    Attributes:
        fact: what was asked.
        answer: the answer whose first token is scored, as text.
        tokens: the prompt's tokens as text.
        subject: positions [first, end) of the subject's tokens.
        clean: p, the probability without corruption.
        corrupted: p*, mean over samples.
        samples: p* per noise sample, shape (S,).
        restored: p*(t, l) per noise sample, shape (tokens, layers, S).
        settings: how it was made.
    """

    fact: Fact
    answer: str
    tokens: tuple[str, ...]
    subject: tuple[int, int]
    clean: float
    samples: Float[np.ndarray, "samples"]
    restored: Float[np.ndarray, "tokens layers samples"]
    settings: dict[str, object]

    @property
    def corrupted(self) -> float:
        """p*, mean over noise samples."""
        return float(self.samples.mean())

    @property
    def total_effect(self) -> float:
        """TE = p - p*."""
        return self.clean - self.corrupted

    @property
    def effect(self) -> Float[np.ndarray, "tokens layers"]:
        """IE(t, l), mean over noise samples."""
        return (self.restored - self.samples).mean(axis=2)

    def interval(
        self, level: float = 0.95
    ) -> tuple[Float[np.ndarray, "tokens layers"], Float[np.ndarray, "tokens layers"]]:
        """Low and high ends of a t interval of IE over the S noise samples (paired with each sample's own p*)."""
        paired = self.restored - self.samples
        n = paired.shape[2]
        if n < 2:
            nothing = np.full(paired.shape[:2], np.nan)
            return nothing, nothing
        half = stats.t.ppf(0.5 + level / 2, n - 1) * paired.std(axis=2, ddof=1) / np.sqrt(n)
        return self.effect - half, self.effect + half

    @property
    def peak(self) -> tuple[int, int]:
        """(token, layer) of the largest effect. Its interval is too narrow, because it was chosen: confirm it elsewhere."""
        token, layer = np.unravel_index(int(self.effect.argmax()), self.effect.shape)
        return int(token), int(layer)

    def to_json(self) -> dict[str, object]:
        """As plain data: means and intervals, not the single samples; an interval that cannot be had is None."""
        low, high = self.interval()
        return {
            "fact": self.fact.to_json(),
            "answer": self.answer,
            "tokens": list(self.tokens),
            "subject": list(self.subject),
            "clean": self.clean,
            "corrupted": self.corrupted,
            "total_effect": self.total_effect,
            "effect": self.effect.tolist(),
            "low": _finite(low),
            "high": _finite(high),
            "settings": self.settings,
        }

    def save(self, path: str) -> None:
        """Write `to_json` to a file, whole or not at all."""
        import json
        from pathlib import Path

        from palimpsest.runs import atomic_write

        atomic_write(Path(path), json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n")

    def plot(self) -> object:
        """A matplotlib figure: tokens down (the subject's starred), layers across, colour the indirect effect."""
        from palimpsest.locate.plot import plot_trace

        return plot_trace(self)


def trace(
    model: Model,
    fact: Fact,
    *,
    kind: str = "state",
    samples: int = 10,
    noise_level: float | None = None,
    answer: str | None = None,
    seed: int = 1,
    preset: str | None = None,
    spread_of: Sequence[Fact] | None = None,
    progress: Progress | None = None,
) -> Trace:
    """Trace one fact.

    Args:
        model: read, never changed.
        fact: whose prompt is traced.
        kind: "state", the residual stream after a layer.
        samples: noise samples S.
        noise_level: standard deviation of the noise; 3 times the spread of subject embeddings when None.
        answer: scored by its first token; `target_true` when None, or the model's own first choice where that is None too.
        seed: of the noise.
        preset: "rome-2022" scores the clean argmax and shares one noise draw among facts, as the published code does.
        spread_of: facts whose subjects set the noise level; the shipped facts when None.
        progress: called with (done, total, label).

    Raises:
        SettingError: an unknown kind or preset, fewer than one sample, or noise that is negative or not finite.
        FactError: the subject is not in the prompt.
    """
    if kind != "state":
        raise SettingError(f"Tracing knows the kind 'state', got {kind!r}.")
    if preset not in (None, "rome-2022"):
        raise SettingError(f"Tracing has no preset {preset!r}; the one there is: rome-2022.")
    if samples < 1:
        raise SettingError(f"Tracing needs at least one noise sample, got {samples}.")
    if noise_level is not None and not 0 <= noise_level < float("inf"):
        raise SettingError(f"Tracing needs a noise_level of 0 or more, got {noise_level}.")
    if noise_level is None:
        noise_level = SPREADS * embedding_spread(model, spread_of or read_facts("shipped").facts)
    encoded = model.encode(fact.text)
    subject = encoded.tokens_of(*fact.subject_span)
    with torch.no_grad(), model.evaluating():
        clean_logits = at_least_float32(model.last_logits(align([encoded.ids], [0]))[0])
        token = _scored_token(model, fact, answer, clean_logits, preset)
        clean = float(clean_logits.softmax(-1)[token])
        noise = noise_level * noise_draw(
            samples, len(subject), model.anatomy.width, seed=seed, fact=None if preset else fact
        )
        corrupted, restored = _restore_states(model, encoded.ids, subject, noise, token, progress)
    settings: dict[str, object] = {
        "model": model.name,
        "kind": kind,
        "samples": samples,
        "noise_level": noise_level,
        "seed": seed,
        "preset": preset,
        "score": "probability of the first token of the answer",
    }
    return Trace(
        fact,
        model.tokenizer.decode([token]),
        tuple(token_strings(model.tokenizer, encoded.ids)),
        (subject[0], subject[-1] + 1),
        clean,
        corrupted,
        restored,
        settings,
    )


def _finite(array: Float[np.ndarray, "tokens layers"]) -> list[list[float]] | None:
    """As lists; None where one sample gave no interval, because JSON has no NaN."""
    return array.tolist() if np.isfinite(array).all() else None


def _scored_token(model: Model, fact: Fact, answer: str | None, clean: Tensor, preset: str | None) -> int:
    wanted = answer or fact.target_true
    if preset or wanted is None:
        return int(clean.argmax())
    ids, begin = model.encode_answer(fact.text, wanted)
    if begin >= len(ids):
        raise FactError(f"The answer {wanted!r} has no token after {fact.text!r}.")
    return ids[begin]


def _restore_states(
    model: Model,
    ids: tuple[int, ...],
    subject: range,
    noise: Float[Tensor, "samples subject width"],
    token: int,
    progress: Progress | None,
) -> tuple[Float[np.ndarray, "samples"], Float[np.ndarray, "tokens layers samples"]]:
    """p* per sample, and p*(t, l) per sample for every token and layer."""
    samples, length, n_layers = len(noise), len(ids), model.n_layers
    sites = [Site("resid_out", l) for l in range(n_layers)]
    clean = model.record(align([ids], [0]), sites)
    batch = align([ids] * samples, [0] * samples).to(model.device)
    corrupt = [add_noise(noise, subject[0])]
    states = model.record(batch, sites, taps=corrupt)
    at = torch.full((samples, 1), length - 1, device=model.device)

    def score(logits: Tensor) -> np.ndarray:
        return at_least_float32(logits[:, 0]).softmax(-1)[:, token].cpu().double().numpy()

    corrupted = score(model.run(batch, at=at, taps=corrupt))
    restored = np.repeat(corrupted[None, None], length, axis=0).repeat(n_layers, axis=1)
    total = (length - subject[0]) * n_layers
    for t in range(subject[0], length):
        prefix = _corrupted_prefix(model, batch, t, noise, subject)
        for l, site in enumerate(sites):
            resid = states[site][:, t:].clone()
            resid[:, 0] = clean[site][0, t]
            restored[t, l] = score(model.run(batch, start=l + 1, resid=resid, prefix=prefix, at=at))
        if progress:
            progress((t - subject[0] + 1) * n_layers, total, "restorations")
    return corrupted, restored


def _corrupted_prefix(model: Model, batch: Batch, length: int, noise: Tensor, subject: range) -> Prefix:
    (prefix,) = model.run_prefixes(batch, [length], taps=[add_noise(noise, subject[0])])
    return prefix
