"""Lesions: the clean run with one site put to something else, on the same grid as causal tracing.

    N(t, l) = m1 - m(clean; site(t, l) <- other)

    noise         what the site was in the run with noise on the subject; one sample a draw
    interchange   what it was for another subject of the relation, with another answer; one sample a subject
    mean          its mean over those subjects
    resample      what it was at a random token, not the first, of a random prompt of another relation; one sample a prompt
    zero          zero

N says that the clean run needs the site's own value. A site with a large indirect effect and no N is one of several
(redundancy). Zero and resampled values are far from anything the model sees there, so they break more than they remove: read
them beside the others (validity of ablations: Zhang and Nanda 2024; Wang et al. 2023, section 2.1, on means).

Controls: the map at other layers, and the restoration of the same site (`palimpsest.locate.tracing.trace`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palimpsest.errors import FactError, PalimpsestError, SettingError, did_you_mean
from palimpsest.facts import Fact, read_facts
from palimpsest.locate.tracing.asked import (
    Asked,
    Rows,
    ask,
    ask_each_of,
    checked_gate,
    clean_log_p,
    run_clean,
    run_corrupted,
    scored_tokens,
)
from palimpsest.locate.tracing.corruption import SPREADS, Corrupted, Corruption, embedding_spread, seed_of, swapped
from palimpsest.locate.tracing.maps import Lesion, checked_score
from palimpsest.locate.tracing.patching import BATCH_TOKENS, Patch, patch_grid
from palimpsest.locate.tracing.trace import chosen_layers, described, ends, finite, own_cells, settings_of
from palimpsest.model import Model, Site, pad
from palimpsest.runs import Progress

BY = ("noise", "interchange", "mean", "resample", "zero")


def lesion(
    model: Model,
    fact: Fact,
    *,
    kind: str = "state",
    window: int = 10,
    by: str = "interchange",
    severed: str | None = None,
    samples: int = 10,
    noise_level: float | None = None,
    score: str = "probability",
    answer: str | None = None,
    foil: str | None = None,
    gate: str = "first",
    layers: Sequence[int] | None = None,
    seed: int = 1,
    spread_of: Sequence[Fact] | None = None,
    swap_with: Sequence[str] = (),
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> Lesion:
    """Lesion one fact's run at every (token, layer).

    Args:
        by: "interchange", "noise", "mean", "resample" or "zero"; see the module's text.
        severed: "mlp" or "attn": all later outputs of that module at the token are held at their clean values.
        spread_of: facts that set the noise level, give the other subjects, and are resampled; the shipped ones when None.
        model, fact, kind, window, samples, noise_level, score, answer, foil, gate, layers, seed, swap_with, batch_tokens,
        progress: as in `palimpsest.trace`.

    Raises:
        SettingError: an unknown `by`, kind or score, or a number out of range.
        FactError: the subject is not in the prompt, the foil begins like the answer, or no other subject fits.
        InputError: the prompt is longer than the model reads.
    """
    made = Lesioner.of(
        model,
        spread_of,
        kind=kind,
        window=window,
        by=by,
        severed=severed,
        samples=samples,
        noise_level=noise_level,
        score=score,
        answer=answer,
        foil=foil,
        gate=gate,
        layers=layers,
        seed=seed,
        swap_with=swap_with,
        batch_tokens=batch_tokens,
    )
    (found,) = made.each(model, [fact], progress=progress)
    if isinstance(found, PalimpsestError):
        raise found
    return found


@dataclass(frozen=True)
class Source:
    """Where the values that are put in come from.

    Attributes:
        rows: the runs they are taken from; the prompt's own for `zero` and `resample`.
        elsewhere: for `resample`, per sample the ids of another prompt and a position in it for every token.
    """

    rows: Corrupted
    elsewhere: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class Lesioner:
    """Settings of a lesion, complete and checked; `lesion` documents them.

    With `ends_only`, the last token of the subject and that of the prompt are patched, and the map is NaN at all others.
    """

    patch: Patch
    by: str
    corruption: Corruption
    score: str
    layers: tuple[int, ...]
    gate: str = "first"
    answer: str | None = None
    foil: str | None = None
    batch_tokens: int = BATCH_TOKENS
    ends_only: bool = False

    @classmethod
    def of(
        cls,
        model: Model,
        spread_of: Sequence[Fact] | None = None,
        *,
        kind: str = "state",
        window: int = 10,
        by: str = "interchange",
        severed: str | None = None,
        samples: int = 10,
        noise_level: float | None = None,
        score: str = "probability",
        answer: str | None = None,
        foil: str | None = None,
        gate: str = "first",
        layers: Sequence[int] | None = None,
        seed: int = 1,
        swap_with: Sequence[str] = (),
        batch_tokens: int = BATCH_TOKENS,
    ) -> "Lesioner":
        """From what a user gives, with every default filled in; the noise level is measured here."""
        if by not in BY:
            raise SettingError(f"A lesion is made by one of {', '.join(BY)}, got {by!r}.{did_you_mean(by, BY)}")
        if batch_tokens < 1:
            raise SettingError(f"A run has at least one token, got batch_tokens={batch_tokens}.")
        pool = tuple(spread_of) if spread_of is not None else tuple(read_facts("shipped").facts)
        if noise_level is None:
            noise_level = SPREADS * embedding_spread(model, pool) if by == "noise" else 0.0
        how = Corruption(
            "noise" if by == "noise" else "swap", samples, noise_level, seed, pool=pool, swap_with=tuple(swap_with)
        )
        patch = Patch(kind, 1 if kind == "state" else window, severed)
        return cls(
            patch,
            by,
            how,
            checked_score(score),
            chosen_layers(model, layers),
            checked_gate(gate),
            answer,
            foil,
            batch_tokens,
        )

    @property
    def card(self) -> dict[str, object]:
        """The settings as plain data."""
        return {
            "kind": self.patch.kind,
            "window": self.patch.window,
            "severed": self.patch.severed,
            "by": self.by,
            **self.corruption.card,
            "score": self.score,
            "gate": self.gate,
            "answer": self.answer,
            "foil": self.foil,
            "layers": list(self.layers),
            "batch_tokens": self.batch_tokens,
        }

    @torch.no_grad()
    def each(
        self, model: Model, facts: Sequence[Fact], *, progress: Progress | None = None
    ) -> list[Lesion | PalimpsestError]:
        """Lesion several facts in shared batches; in the place of one that cannot be lesioned stands why."""
        with model.evaluating():
            asked, failures = ask_each_of(model, facts, self._ask)
            maps = iter(
                self._maps(model, [one for one, _ in asked], [how for _, how in asked], progress) if asked else []
            )
            return [failures.get(i) or next(maps) for i in range(len(facts))]

    def _ask(self, model: Model, fact: Fact) -> tuple[Asked, Source]:
        """What is asked, and where the values that are put in come from."""
        asked = ask(model, fact, answer=self.answer, foil=self.foil, score=self.score, gate=self.gate)
        how, alone = self.corruption, Corrupted((asked.encoded.ids,), tuple(asked.subject))
        if self.by == "noise":
            return asked, Source(how.of(model, fact, asked.encoded))
        if self.by in ("interchange", "mean"):
            others = swapped(model, fact, asked.encoded, how.pool, how.samples, seed=how.seed, swap_with=how.swap_with)
            return asked, Source(others)
        return asked, Source(alone, resampled(model, asked, how) if self.by == "resample" else ())

    def _maps(
        self, model: Model, asked: Sequence[Asked], sources: Sequence[Source], progress: Progress | None
    ) -> list[Lesion | PalimpsestError]:
        n_layers, sites = model.n_layers, self.patch.donor_sites(model.n_layers)
        base = run_clean(model, asked, self.patch.base_sites(n_layers))
        other = run_corrupted(model, asked, [source.rows for source in sources], sites)
        donor, of_donor = self._donors(model, base, other, sources, sites)
        corrupts = self.by not in ("zero", "resample")
        rows, owner = list[tuple[int, int]](), list[int]()
        for i in range(len(asked)):
            rows += [(base.of[i].start, row) for row in of_donor[i]]
            owner += [i] * len(of_donor[i])
        patched = patch_grid(
            model,
            self.patch,
            base.ran,
            donor,
            rows=rows,
            # before the first token that differs, the other run is the same run
            first=[base.offset[i] + (sources[i].rows.positions[0] if corrupts else 0) for i in owner],
            scored=scored_tokens([asked[i] for i in owner]),
            layers=self.layers,
            only=ends([asked[i] for i in owner], [base.offset[i] for i in owner]) if self.ends_only else None,
            batch_tokens=self.batch_tokens,
            progress=progress,
        )
        of_rows = np.cumsum([0, *(len(rows) for rows in of_donor)])
        own = [slice(int(a), int(b)) for a, b in zip(of_rows, of_rows[1:], strict=False)]
        mine = Rows(base.ran, tuple(own), base.offset)
        return [
            finite(
                Lesion(
                    **described(model, one, self.layers, self.score),
                    log_p_clean=clean_log_p(base, i),
                    log_p_corrupted=other.ran.log_p[other.of[i]] if corrupts else np.empty((0, 2)),
                    log_p_patched=own_cells(patched, mine, i),
                    settings=settings_of(model, self.card, source.rows),
                ),
                ends_only=self.ends_only,
            )
            for i, (one, source) in enumerate(zip(asked, sources, strict=True))
        ]

    def _donors(
        self, model: Model, base: Rows, other: Rows, sources: Sequence[Source], sites: Sequence[Site]
    ) -> tuple[dict[Site, Tensor], list[list[int]]]:
        """The tensors that are put in, and per fact the rows of them it uses."""
        states, alone = other.ran.states, [[i] for i in range(len(sources))]
        if self.by in ("noise", "interchange"):
            return states, [list(range(of.start, of.stop)) for of in other.of]
        if self.by == "mean":
            return {site: torch.stack([states[site][of].mean(0) for of in other.of]) for site in sites}, alone
        if self.by == "zero":
            return {site: torch.zeros_like(states[site]) for site in sites}, alone
        columns = base.ran.batch.ids.shape[1]
        parts: list[dict[Site, Tensor]] = []
        rows: list[list[int]] = []
        for source, offset in zip(sources, base.offset, strict=True):
            begin = len(parts)
            for ids, positions in source.elsewhere:
                at = torch.zeros(columns, dtype=torch.long)
                at[offset:] = torch.tensor(positions)
                found = model.record(pad([ids]), sites)
                parts.append({site: found[site][0, at.to(model.device)] for site in sites})
            rows.append(list(range(begin, len(parts))))
        return {site: torch.stack([part[site] for part in parts]) for site in sites}, rows


def resampled(model: Model, asked: Asked, how: Corruption) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Per sample the ids of a random prompt of another relation, and for each token of this one a random position in it.

    The first position is left out where there are others: many models keep a state there that no other token has.

    Raises:
        FactError: there is no such prompt.
    """
    pool = [fact for fact in how.pool if fact.relation != asked.fact.relation]
    if not pool:
        raise FactError(
            f"There is no prompt of another relation to resample from for {asked.fact.id}; give more facts with spread_of."
        )
    draw = np.random.RandomState(seed_of(asked.fact, how.seed))
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for i in draw.choice(len(pool), min(how.samples, len(pool)), replace=False):
        ids = model.encode(pool[i].text).ids
        low = 1 if len(ids) > 1 else 0
        found.append((ids, tuple(int(at) for at in draw.randint(low, len(ids), size=len(asked.encoded)))))
    return tuple(found)
