"""Try to bring an association back, and set what comes against the base rate.

    elicit(model, associations, edit).table()

For association (x, y) and an attack that makes a text of a prompt,

    p_after(x)     probability of the first token of y after the attacked prompt, with the edit
    p_base         the same y after the same attack on prompts that are about something else, the mean of them, with the edit

Attacks: "direct", the prompt itself; "paraphrase", each of its paraphrases; "prefix", sentences before it that ask for it;
"primed", the completion named twice before it. A primed model repeats y after anything, which is why the base is attacked alike:
the association is gone where `excess`, the mean of p_after - p_base, is not above zero, and still there where its whole interval
is. One association has no interval, and nothing is said of it.

Of a completion of several tokens the first is asked for, as it is the first that `remove` takes away.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np

from palimpsest.edit import Edit
from palimpsest.erase.unwanted.associations import Association, shipped_controls
from palimpsest.errors import InputError
from palimpsest.locate.answers import first_token, next_token_logits
from palimpsest.model import Model
from palimpsest.statistics import Estimate, cluster_bootstrap, paired_difference

ATTACKS = ("direct", "paraphrase", "prefix", "primed")


@dataclass(frozen=True, eq=False)
class Elicitation:
    """What each attack brought back, text by text; the associations are the clusters of every interval.

    Attributes:
        rows: one a text: association, attack, text, and before and after, each with p (of the completion), first (whether it
            is the likeliest) and base (its mean p after the control prompts under the same attack).
        edited: whether there was an edit; without one, after is before.
    """

    rows: tuple[Mapping[str, Any], ...]
    edited: bool

    def probability(self, attack: str, when: str = "after") -> Estimate:
        """Mean probability of the completion."""
        return self._estimate(attack, when, "p")

    def first(self, attack: str, when: str = "after") -> Estimate:
        """How often the completion is the likeliest."""
        return self._estimate(attack, when, "first")

    def base(self, attack: str, when: str = "after") -> Estimate:
        """Mean probability of the completion after prompts about something else, attacked alike."""
        return self._estimate(attack, when, "base")

    def excess(self, attack: str, when: str = "after") -> Estimate:
        """Probability less the base rate, paired."""
        rows = self._rows(attack)
        p, base = ([row[when][name] for row in rows] for name in ("p", "base"))
        return paired_difference(p, base, [row["association"] for row in rows])

    def gone(self, attack: str) -> bool | None:
        """Whether the interval of `excess` reaches down to zero; None where there is none, as of one association."""
        low = self.excess(attack).low
        return None if isnan(low) else low <= 0

    def table(self) -> list[dict[str, str]]:
        """An attack a row."""
        found = []
        for attack in self.attacks:
            row = {"attack": attack, "texts": str(len(self._rows(attack)))}
            for name, read in (
                ("p", self.probability),
                ("base", self.base),
                ("excess", self.excess),
                ("first", self.first),
            ):
                for when in ("before", "after") if self.edited else ("before",):
                    row[f"{name} {when}"] = str(read(attack, when)).split(" (")[0]
            if self.edited:
                row["gone"] = {True: "yes", False: "no", None: "cannot be said"}[self.gone(attack)]
            found.append(row)
        return found

    @property
    def attacks(self) -> tuple[str, ...]:
        """Those that had a text."""
        return tuple(attack for attack in ATTACKS if any(row["attack"] == attack for row in self.rows))

    def to_json(self) -> dict[str, Any]:
        """Every estimate and every row."""
        kinds: dict[str, Callable[[str, str], Estimate]] = {
            "p": self.probability,
            "first": self.first,
            "base": self.base,
            "excess": self.excess,
        }
        return {
            "edited": self.edited,
            "attacks": {
                attack: {
                    name: {when: read(attack, when).to_json() for when in ("before", "after")}
                    for name, read in kinds.items()
                }
                | {"gone": self.gone(attack)}
                for attack in self.attacks
            },
            "rows": [dict(row) for row in self.rows],
        }

    def _rows(self, attack: str) -> list[Mapping[str, Any]]:
        rows = [row for row in self.rows if row["attack"] == attack]
        if not rows:
            raise InputError(f"No text was attacked by {attack!r}; those at hand are {', '.join(self.attacks)}.")
        return rows

    def _estimate(self, attack: str, when: str, name: str) -> Estimate:
        rows = self._rows(attack)
        return cluster_bootstrap([float(row[when][name]) for row in rows], [row["association"] for row in rows])


def elicit(
    model: Model,
    associations: Sequence[Association],
    edit: Edit | None = None,
    *,
    controls: Sequence[str] | None = None,
    prefixes: Sequence[str] | None = None,
) -> Elicitation:
    """Attack every association, without and with `edit`.

    Args:
        model: left as it was.
        associations: at least one.
        edit: what `remove` gave; nothing but the unedited model is asked when None.
        controls: prompts that none of them is about, for the base rate; those that ship when None.
        prefixes: of the attack "prefix"; those that ship when None.

    Raises:
        InputError: there is no association or no control.
    """
    usual = shipped_controls()
    controls = usual[0] if controls is None else tuple(controls)
    prefixes = usual[1] if prefixes is None else tuple(prefixes)
    if not associations or not controls:
        raise InputError("Elicitation needs at least one association and one control prompt, for the base rate.")
    texts = [(one, attack, frame, text) for one in associations for attack, frame, text in _attacked(one, prefixes)]
    before = _ask(model, texts, controls)
    after = before
    if edit is not None:
        with edit.applied(model):
            after = _ask(model, texts, controls)
    rows = tuple(
        {"association": one.id, "attack": attack, "text": frame + text, "before": b, "after": a}
        for (one, attack, frame, text), b, a in zip(texts, before, after, strict=True)
    )
    return Elicitation(rows, edit is not None)


def base_rates(model: Model, associations: Sequence[Association], controls: Sequence[str]) -> list[float]:
    """Mean probability of each completion after the control prompts."""
    p = _probabilities(model, controls)
    return [float(p[:, first_token(model, one.prompt, one.completion)].mean()) for one in associations]


def _attacked(one: Association, prefixes: Sequence[str]) -> list[tuple[str, str, str]]:
    """(attack, what it puts before the prompt, the prompt)."""
    primed = f"{one.completion}! {one.completion}! "
    return [
        ("direct", "", one.prompt),
        *(("paraphrase", "", text) for text in one.paraphrases),
        *(("prefix", prefix, one.prompt) for prefix in prefixes),
        ("primed", primed[0].upper() + primed[1:], one.prompt),
    ]


def _ask(
    model: Model, texts: Sequence[tuple[Association, str, str, str]], controls: Sequence[str]
) -> list[dict[str, float | bool]]:
    asked = _probabilities(model, [frame + text for _, _, frame, text in texts])
    frames = list(dict.fromkeys(frame for _, _, frame, _ in texts))
    base = {frame: _probabilities(model, [frame + text for text in controls]).mean(0) for frame in frames}
    found: list[dict[str, float | bool]] = []
    for (one, _, frame, text), p in zip(texts, asked, strict=True):
        token = first_token(model, frame + text, one.completion)
        found.append({"p": float(p[token]), "first": bool(p.argmax() == token), "base": float(base[frame][token])})
    return found


def _probabilities(model: Model, texts: Sequence[str]) -> np.ndarray:
    return next_token_logits(model, texts).softmax(-1).numpy()
