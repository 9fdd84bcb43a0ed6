"""Maps over (token, layer): what a patch at each place does to the answer, with its uncertainty.

Both directions are kept apart by name. With m the score, m1 of the clean run and m0 of the corrupted one,

    total effect       TE = m1 - m0
    restoration        indirect effect   IE(t, l) = m(corrupted; site <- clean) - m0
    lesion             effect             N(t, l) = m1 - m(clean; site <- other)
                       direct effect     DE(t, l) = m(clean; site <- corrupted) - m0 = TE - N(t, l)

(Pearl 2001; Vig et al. 2020, section 3: IE is the natural indirect effect, DE the natural direct one.) IE says that the
site suffices, in a corrupted context, to bring the answer back; N says that the clean run needs it. TE is not IE + DE in
general: what is left is redundancy and interaction, and both maps are needed to see it.

    score                p                                log p             logit - logit of the foil
    name                 "probability"                    "log-probability" "logit-difference"
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

import numpy as np
from jaxtyping import Float
from scipy import stats

from palimpsest.errors import InputError, SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.locate.saving import save_json

SCORES = {"probability": 0.01, "log-probability": 0.1, "logit-difference": 0.1}  # and the least total effect of a ratio


@dataclass(frozen=True, eq=False)
class EffectMap(ABC):
    """What patching each place does to one answer. `Trace` and `Lesion` say in which direction.

    Attributes:
        fact: what was asked.
        answer, foil: whose first tokens are scored, as text; no foil is "".
        known: whether the answer is the model's own first choice. An effect on an unknown answer means little.
        tokens: the prompt's tokens as text.
        subject: positions [first, end) of the subject's tokens.
        layers: l of each column of the map.
        score: how log-probabilities become effects: one of `SCORES`.
        log_p_clean: log p of answer and foil without corruption.
        log_p_corrupted: the same per sample; no rows where nothing was corrupted.
        log_p_patched: the same for each token, layer and sample.
        settings: how it was made.
    """

    fact: Fact
    answer: str
    foil: str
    known: bool
    tokens: tuple[str, ...]
    subject: tuple[int, int]
    layers: tuple[int, ...]
    score: str
    log_p_clean: Float[np.ndarray, "2"]
    log_p_corrupted: Float[np.ndarray, "corruptions 2"]
    log_p_patched: Float[np.ndarray, "tokens layers samples 2"]
    settings: dict[str, object]

    what: ClassVar[str] = "effect"

    def scored(self, score: str) -> "EffectMap":
        """The same runs by another score; raises `SettingError` where it is unknown or needs a foil that is not there."""
        if checked_score(score) == "logit-difference" and not self.foil:
            raise SettingError("A logit difference needs a foil; give one, or a fact with a target_new.")
        return replace(self, score=score)

    @property
    def clean(self) -> float:
        """m1."""
        return float(self._score(self.log_p_clean[None])[0])

    @property
    def samples(self) -> Float[np.ndarray, "corruptions"]:
        """m0 per sample."""
        return self._score(self.log_p_corrupted)

    @property
    def corrupted(self) -> float:
        """m0, mean over samples; NaN where nothing was corrupted."""
        return float(self.samples.mean()) if len(self.samples) else float("nan")

    @property
    def total_effect(self) -> float:
        """TE = m1 - m0."""
        return self.clean - self.corrupted

    @property
    def patched(self) -> Float[np.ndarray, "tokens layers samples"]:
        """m with the site patched."""
        return self._score(self.log_p_patched)

    @property
    @abstractmethod
    def effects(self) -> Float[np.ndarray, "tokens layers samples"]:
        """The effect per sample."""

    @property
    def effect(self) -> Float[np.ndarray, "tokens layers"]:
        """The effect, mean over samples."""
        return self.effects.mean(axis=2)

    def interval(
        self, level: float = 0.95
    ) -> tuple[Float[np.ndarray, "tokens layers"], Float[np.ndarray, "tokens layers"]]:
        """Low and high ends of a t interval of the effect over samples (paired within each sample); NaN for one sample."""
        effects = self.effects
        n = effects.shape[2]
        if n < 2:
            nothing = np.full(effects.shape[:2], np.nan)
            return nothing, nothing
        half = stats.t.ppf(0.5 + level / 2, n - 1) * effects.std(axis=2, ddof=1) / np.sqrt(n)
        return self.effect - half, self.effect + half

    @property
    def withheld(self) -> str:
        """Why effects are not divided by the total effect; "" where they are."""
        total = self.clean - self.samples
        if not len(total):
            return "nothing was corrupted, so there is no total effect"
        if (least := SCORES[self.score]) > total.mean():
            return f"the total effect {total.mean():.4f} is below {least}"
        if len(total) > 1:
            low = total.mean() - stats.t.ppf(0.975, len(total) - 1) * total.std(ddof=1) / np.sqrt(len(total))
            if low <= 0:
                return f"the interval of the total effect {total.mean():.4f} reaches down to {low:.4f}"
        return ""

    @property
    def fraction(self) -> Float[np.ndarray, "tokens layers"]:
        """effect / TE; NaN everywhere where `withheld` gives a reason."""
        return self.effect / self.total_effect if not self.withheld else np.full(self.effect.shape, np.nan)

    @property
    def peak(self) -> tuple[int, int]:
        """(token, layer) of the largest effect. Its interval is too narrow, because it was chosen: confirm it elsewhere."""
        token, column = np.unravel_index(int(self.effect.argmax()), self.effect.shape)
        return int(token), self.layers[int(column)]

    def to_json(self) -> dict[str, Any]:
        """As plain data: means and intervals, not the single samples; an interval that cannot be had is None.

        Under "also" stand the means by the other scores.
        """
        low, high = self.interval()
        others = [score for score in SCORES if score != self.score and (self.foil or score != "logit-difference")]
        return {
            "fact": self.fact.to_json(),
            "answer": self.answer,
            "foil": self.foil,
            "known": self.known,
            "tokens": list(self.tokens),
            "subject": list(self.subject),
            "layers": list(self.layers),
            "what": self.what,
            **self._means(),
            "low": _finite(low),
            "high": _finite(high),
            "settings": self.settings,
            "also": {score: self.scored(score)._means() for score in others},
        }

    def _means(self) -> dict[str, Any]:
        total = self.total_effect
        return {
            "score": self.score,
            "clean": self.clean,
            "corrupted": None if np.isnan(total) else self.corrupted,
            "total_effect": None if np.isnan(total) else total,
            "withheld": self.withheld,
            "effect": self.effect.tolist(),
        }

    def save(self, path: str) -> None:
        """Write `to_json` to a file, whole or not at all."""
        save_json(self.to_json(), path)

    def to_pandas(self) -> Any:
        """A data frame with one row a cell: token, position, role, layer, effect, low, high."""
        from palimpsest.errors import PalimpsestError
        from palimpsest.locate.tracing.roles import roles_of

        try:
            import pandas
        except ImportError:
            raise PalimpsestError("A data frame needs pandas; run: pip install pandas") from None
        low, high = self.interval()
        roles = roles_of(len(self.tokens), self.subject)
        return pandas.DataFrame(
            {
                "position": t,
                "token": token,
                "role": roles[t],
                "layer": l,
                "effect": self.effect[t, i],
                "low": low[t, i],
                "high": high[t, i],
            }
            for t, token in enumerate(self.tokens)
            for i, l in enumerate(self.layers)
        )

    def plot(self) -> object:
        """A matplotlib figure: tokens down (the subject's starred), layers across, colour the effect."""
        from palimpsest.locate.tracing.plot import plot_maps

        return plot_maps([self])

    def _score(self, log_p: np.ndarray) -> np.ndarray:
        if self.score == "probability":
            return np.exp(log_p[..., 0])
        if self.score == "log-probability":
            return log_p[..., 0]
        return log_p[..., 0] - log_p[..., 1]


class Trace(EffectMap):
    """A restoration: IE(t, l) of putting clean values back into a corrupted run."""

    what: ClassVar[str] = "indirect effect"

    @property
    def restored(self) -> Float[np.ndarray, "tokens layers samples"]:
        """m(corrupted; site <- clean)."""
        return self.patched

    @property
    def effects(self) -> Float[np.ndarray, "tokens layers samples"]:
        """IE per sample: each is compared with the m0 of the corruption it restores."""
        return self.patched - self.samples


class Lesion(EffectMap):
    """A lesion: N(t, l) = m1 - m of the clean run with a site put to something else."""

    what: ClassVar[str] = "lesion effect"

    @property
    def effects(self) -> Float[np.ndarray, "tokens layers samples"]:
        """N per sample."""
        return self.clean - self.patched

    @property
    def direct_effect(self) -> Float[np.ndarray, "tokens layers"]:
        """DE(t, l) = TE - N(t, l), mean over samples: what of the corruption acts around the site.

        Its definition asks for values of the corrupted run; for a mean, zero or resampled lesion it is NaN.
        """
        if self.settings["by"] not in ("noise", "interchange"):
            return np.full(self.effect.shape, np.nan)
        return self.total_effect - self.effect


def checked_score(score: str) -> str:
    """`score` if it is one."""
    if score not in SCORES:
        raise SettingError(f"There is no score {score!r}.{did_you_mean(score, SCORES)}")
    return score


def _finite(array: Float[np.ndarray, "tokens layers"]) -> list[list[float]] | None:
    """As lists; None where one sample gave no interval, because JSON has no NaN."""
    return array.tolist() if np.isfinite(array).all() else None


Maps: TypeAlias = Sequence[EffectMap | Mapping[str, Any]]


def records_of(maps: Maps, score: str | None = None) -> list[Mapping[str, Any]]:
    """The plain data of maps, as objects or read back from a file, by their own score or by another.

    Raises:
        SettingError: the score is unknown.
        InputError: a map does not have it.
    """
    records = [one.to_json() if isinstance(one, EffectMap) else one for one in maps]
    if score is None:
        return records
    checked_score(score)
    if lacking := [one for one in records if score != one["score"] and score not in one["also"]]:
        name = lacking[0]["fact"]["id"]
        raise InputError(f"The map of {name} has no {score}; it was made without a foil, so trace it again with one.")
    return [one if one["score"] == score else {**one, **one["also"][score]} for one in records]
