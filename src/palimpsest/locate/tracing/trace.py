"""Causal tracing (Meng et al. 2022, section 2).

Three kinds of run of one prompt, each scored by the first token of one answer after the last token:

    clean                   m1
    corrupted               m0              the subject corrupted (`palimpsest.locate.tracing.corruption`)
    corrupted, restored     m(t, l)         and a state, or a window of module outputs, at (t, l) put back to its clean value

    total effect            TE = m1 - m0
    indirect effect         IE(t, l) = m(t, l) - m0

IE says that the site at (t, l) suffices, in a corrupted context, to bring the answer back. It is a restoration, not a
lesion: it does not say that the site is necessary (`palimpsest.locate.tracing.lesion` does), nor that anything is stored there.

Each m is a mean over S samples of the corruption, all restored from the same corrupted runs. Tokens before the first
corrupted one cannot have changed: their IE is exactly 0. How the grid is computed is in `palimpsest.locate.tracing.patching`.

Controls: the map itself at other layers; `donor="shuffled-subject"`, which puts in the states of *another* subject of the
relation; `corruption="relation"`; a re-initialised model (`palimpsest.locate.tracing.controls`); and the lesion on the same grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch

from palimpsest.errors import FactError, ModelError, PalimpsestError, SettingError, did_you_mean
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
from palimpsest.locate.tracing.corruption import (
    SPREADS,
    Corrupted,
    Corruption,
    embedding_spread,
    subject_embeddings,
    swapped,
)
from palimpsest.locate.tracing.maps import EffectMap, Trace, checked_score
from palimpsest.locate.tracing.patching import BATCH_TOKENS, Patch, patch_grid
from palimpsest.model import Model
from palimpsest.runs import Progress

Mapped = TypeVar("Mapped", bound=EffectMap)
DONORS = ("clean", "shuffled-subject")
DEFAULTS: dict[str, Any] = {"corruption": "noise", "samples": 10, "score": "probability", "window": 10, "seed": 1}
# the published code; with it one noise draw serves all facts with as many subject tokens, and the clean argmax is scored
PRESETS: dict[str, dict[str, Any]] = {"rome-2022": dict(DEFAULTS)}


def trace(
    model: Model,
    fact: Fact,
    *,
    kind: str = "state",
    window: int | None = None,
    severed: str | None = None,
    corruption: str | None = None,
    samples: int | None = None,
    noise_level: float | None = None,
    score: str | None = None,
    answer: str | None = None,
    foil: str | None = None,
    gate: str = "first",
    donor: str = "clean",
    layers: Sequence[int] | None = None,
    seed: int | None = None,
    preset: str | None = None,
    spread_of: Sequence[Fact] | None = None,
    swap_with: Sequence[str] = (),
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> Trace:
    """Trace one fact. For many, with resume, see `trace_facts`.

    Args:
        model: read, never changed.
        fact: whose prompt is traced.
        kind: "state" (the residual stream after a layer), "mlp" or "attn" (the output of that module).
        window: of layers restored together, for "mlp" and "attn": layers max(0, l - w // 2) to min(L, l + ceil(w / 2)) - 1,
            so l - 5 to l + 4 for the default of 10.
        severed: "mlp" or "attn": all later outputs of that module at the restored token stay at their corrupted values.
        corruption: "noise" (the default), "swap", "mean" or "relation".
        samples: S, noise draws or other subjects (10).
        noise_level: standard deviation of the noise; 3 times the spread of subject embeddings when None.
        score: "probability" (the default), "log-probability" or "logit-difference" (against the foil).
        answer: scored by its first token; `target_true` when None, or the model's own first choice where that is None too.
        foil: an answer to compare with; `target_new` when None.
        gate: when the fact counts as known: "first" (the answer is the model's first choice) or "foil" (it outranks the
            foil: for minimal pairs).
        donor: "clean", or "shuffled-subject" for the control that restores another subject's states.
        layers: which l to map; all when None.
        seed: of the corruption (1).
        preset: "rome-2022", the published code: the clean argmax is scored, one noise draw serves all facts with as many
            subject tokens, recurring subjects count as often in the noise level, and with `severed` the run that is restored
            has the second draw of the stream while the held values and m0 have the first. `samples`, `window`, `seed` and
            `noise_level` may still be given, and are recorded.
        spread_of: facts whose subjects set the noise level, and are swapped in; the shipped facts when None.
        swap_with: these subjects are swapped in, and no others.
        batch_tokens: largest number of tokens run at once; memory grows with it.
        progress: called with (done, total, label).

    Raises:
        SettingError: an unknown kind, score, corruption, donor or preset, a preset and a setting that contradict each other,
            fewer than one sample, a window or layer out of range, or noise that is negative or not finite.
        FactError: the subject is not in the prompt, the foil begins like the answer, or no other subject can be swapped in.
        InputError: the prompt is longer than the model reads.
    """
    given: dict[str, Any] = {
        "kind": kind,
        "window": window,
        "severed": severed,
        "corruption": corruption,
        "samples": samples,
        "noise_level": noise_level,
        "score": score,
        "answer": answer,
        "foil": foil,
        "gate": gate,
        "donor": donor,
        "layers": layers,
        "seed": seed,
        "preset": preset,
        "swap_with": swap_with,
        "batch_tokens": batch_tokens,
    }
    (found,) = Tracer.of(model, spread_of, **given).each(model, [fact], progress=progress)
    if isinstance(found, PalimpsestError):
        raise found
    return found


@dataclass(frozen=True)
class Tracer:
    """Settings of a trace, complete and checked; `trace` documents them.

    With `ends_only`, the last token of the subject and that of the prompt are patched, and the map is NaN at all others.
    """

    patch: Patch
    corruption: Corruption
    score: str
    layers: tuple[int, ...]
    gate: str = "first"
    donor: str = "clean"
    answer: str | None = None
    foil: str | None = None
    preset: str | None = None
    batch_tokens: int = field(default=BATCH_TOKENS)
    ends_only: bool = False

    @classmethod
    def of(
        cls,
        model: Model,
        spread_of: Sequence[Fact] | None = None,
        *,
        kind: str = "state",
        window: int | None = None,
        severed: str | None = None,
        corruption: str | None = None,
        samples: int | None = None,
        noise_level: float | None = None,
        score: str | None = None,
        answer: str | None = None,
        foil: str | None = None,
        gate: str = "first",
        donor: str = "clean",
        layers: Sequence[int] | None = None,
        seed: int | None = None,
        preset: str | None = None,
        swap_with: Sequence[str] = (),
        batch_tokens: int = BATCH_TOKENS,
    ) -> "Tracer":
        """From what a user gives, with every default filled in; the noise level is measured here."""
        if preset is not None and preset not in PRESETS:
            raise SettingError(f"Tracing has no preset {preset!r}; the one there is: {', '.join(PRESETS)}.")
        if donor not in DONORS:
            raise SettingError(f"A donor is one of {', '.join(DONORS)}, got {donor!r}.{did_you_mean(donor, DONORS)}")
        if preset and answer is not None:
            raise SettingError(f"The preset {preset!r} scores the clean argmax, so no answer can be given.")
        if preset and donor != "clean":
            raise SettingError(f"The preset {preset!r} restores clean states, got donor={donor!r}.")
        if batch_tokens < 1:
            raise SettingError(f"A run has at least one token, got batch_tokens={batch_tokens}.")
        published = PRESETS.get(preset or "", {})
        for name, value in (("corruption", corruption), ("score", score)):
            if value not in (None, published.get(name, value)):
                raise SettingError(
                    f"The preset {preset!r} has {name}={published[name]!r}, got {value!r}; leave one of them out."
                )
        given = {"corruption": corruption, "samples": samples, "score": score, "window": window, "seed": seed}
        chosen = DEFAULTS | published | {name: value for name, value in given.items() if value is not None}
        pool = tuple(spread_of) if spread_of is not None else tuple(read_facts("shipped").facts)
        if noise_level is None:
            noisy = chosen["corruption"] in ("noise", "relation")
            noise_level = SPREADS * embedding_spread(model, pool, distinct=preset is None) if noisy else 0.0
        return cls(
            Patch(kind, 1 if kind == "state" else chosen["window"], severed),
            Corruption(
                chosen["corruption"],
                chosen["samples"],
                noise_level,
                chosen["seed"],
                shared=preset is not None,
                pool=pool,
                swap_with=tuple(swap_with),
                mean=subject_embeddings(model, pool).mean(0) if chosen["corruption"] == "mean" else None,
            ),
            checked_score(chosen["score"]),
            chosen_layers(model, layers),
            checked_gate(gate),
            donor,
            answer,
            foil,
            preset,
            batch_tokens,
        )

    @property
    def card(self) -> dict[str, object]:
        """The settings as plain data."""
        return {
            "kind": self.patch.kind,
            "window": self.patch.window,
            "severed": self.patch.severed,
            "corruption": self.corruption.kind,
            **self.corruption.card,
            "score": self.score,
            "gate": self.gate,
            "donor": self.donor,
            "preset": self.preset,
            "answer": self.answer,
            "foil": self.foil,
            "layers": list(self.layers),
            "batch_tokens": self.batch_tokens,
        }

    @torch.no_grad()
    def each(
        self, model: Model, facts: Sequence[Fact], *, progress: Progress | None = None
    ) -> list[Trace | PalimpsestError]:
        """Trace several facts in shared batches; in the place of one that cannot be traced stands why."""
        with model.evaluating():
            asked, failures = ask_each_of(model, facts, self._ask)
            maps = iter(
                self._maps(model, [one for one, _ in asked], [how for _, how in asked], progress) if asked else []
            )
            return [failures.get(i) or next(maps) for i in range(len(facts))]

    def _ask(self, model: Model, fact: Fact) -> tuple[Asked, tuple[Corrupted, Corrupted]]:
        """What is asked, the rows that are corrupted, and the rows whose states are put in."""
        asked = ask(
            model,
            fact,
            answer=self.answer,
            foil=self.foil,
            argmax=self.preset is not None,
            score=self.score,
            gate=self.gate,
        )
        corrupted = self.corruption.of(model, fact, asked.encoded, draw=1 if self._draws_twice else 0)
        return asked, (corrupted, self._donor(model, asked, corrupted))

    @property
    def _draws_twice(self) -> bool:
        """Whether, as in the published code, severed outputs come from another draw than the run that is restored."""
        return self.preset is not None and self.patch.severed is not None

    def _donor(self, model: Model, asked: Asked, corrupted: Corrupted) -> Corrupted:
        """The rows whose states are put in: the clean one, or one a sample, of a subject that is not the one swapped in."""
        if self.donor == "clean":
            return Corrupted((asked.encoded.ids,), tuple(asked.subject))
        how = self.corruption
        others = swapped(
            model, asked.fact, asked.encoded, how.pool, how.samples + 1, seed=how.seed + 1, swap_with=how.swap_with
        )
        rows: list[int] = []
        for sample in range(len(corrupted.ids)):
            mine = corrupted.subjects[sample] if corrupted.subjects else None
            able = [row for row, name in enumerate(others.subjects) if name != mine]
            if not able:
                raise FactError(
                    f"Only {mine!r} can stand for {asked.fact.subject!r}, so there is no third subject to restore; give more "
                    f"facts of the relation, or corrupt with noise."
                )
            rows.append(able[sample % len(able)])
        return Corrupted(
            tuple(others.ids[row] for row in rows),
            others.positions,
            subjects=tuple(others.subjects[row] for row in rows),
        )

    def _maps(
        self,
        model: Model,
        asked: Sequence[Asked],
        rows_of: Sequence[tuple[Corrupted, Corrupted]],
        progress: Progress | None,
    ) -> list[Trace | PalimpsestError]:
        corrupted, donors = [how for how, _ in rows_of], [donor for _, donor in rows_of]
        base = run_corrupted(model, asked, corrupted, self.patch.base_sites(model.n_layers))
        donor = run_corrupted(model, asked, donors, self.patch.donor_sites(model.n_layers))
        clean = donor if self.donor == "clean" else run_clean(model, asked, [])
        first_draw = base
        if self._draws_twice:
            again = [self.corruption.of(model, one.fact, one.encoded) for one in asked]
            first_draw = run_corrupted(model, asked, again, self.patch.held_sites(model.n_layers))
        rows, owner, first = list[tuple[int, int]](), list[int](), list[int]()
        for i, (how, source) in enumerate(zip(corrupted, donors, strict=True)):
            for sample, row in enumerate(range(base.of[i].start, base.of[i].stop)):
                rows.append((row, donor.of[i].start + (sample if source.subjects else 0)))
                owner.append(i)
                # nothing differs before the first token that the corruption changes, or the donor's subject does
                begins = (*how.positions, *(source.positions if source.subjects else ()))
                first.append(base.offset[i] + min(begins))
        patched = patch_grid(
            model,
            self.patch,
            base.ran,
            donor.ran.states,
            rows=rows,
            first=first,
            scored=scored_tokens([asked[i] for i in owner]),
            layers=self.layers,
            only=ends([asked[i] for i in owner], [base.offset[i] for i in owner]) if self.ends_only else None,
            held=first_draw.ran.states if self._draws_twice else None,
            batch_tokens=self.batch_tokens,
            progress=progress,
        )
        return [
            finite(
                Trace(
                    **described(model, one, self.layers, self.score),
                    log_p_clean=clean_log_p(clean, i),
                    log_p_corrupted=first_draw.ran.log_p[base.of[i]],
                    log_p_patched=own_cells(patched, base, i),
                    settings=settings_of(model, self.card, how, source),
                ),
                ends_only=self.ends_only,
            )
            for i, (one, (how, source)) in enumerate(zip(asked, rows_of, strict=True))
        ]


def ends(asked: Sequence[Asked], offsets: Sequence[int]) -> list[tuple[int, int]]:
    """Per row of a grid the columns of the subject's last token and of the prompt's."""
    return [
        (offset + one.subject[-1], offset + len(one.encoded) - 1) for one, offset in zip(asked, offsets, strict=True)
    ]


def finite(found: Mapped, *, ends_only: bool = False) -> Mapped | PalimpsestError:
    """The map itself, or why its numbers mean nothing."""
    patched = found.log_p_patched
    if ends_only:
        patched = patched[[found.subject[1] - 1, -1]]
    if np.isfinite(patched).all() and np.isfinite(found.log_p_clean).all():
        return found
    return ModelError(
        f"The map of {found.fact.id} has numbers that are not finite; check the model with `palimpsest doctor`."
    )


def settings_of(model: Model, card: dict[str, object], *rows: Corrupted) -> dict[str, object]:
    """The settings of one map, with the subjects that were in fact swapped in, and those whose states were."""
    names = zip(("swapped", "donors"), rows, strict=False)
    made = {"model": model.name, "dtype": str(model.net.dtype).removeprefix("torch.")}
    return made | card | {name: list(row.subjects) for name, row in names if row.subjects}


def chosen_layers(model: Model, layers: Sequence[int] | None) -> tuple[int, ...]:
    """All layers, or those given, checked."""
    if layers is None:
        return tuple(range(model.n_layers))
    if not layers:
        raise SettingError("A map needs at least one layer, got none.")
    if len(set(layers)) < len(layers):
        raise SettingError(f"Each layer is mapped once, got {list(layers)}; name none twice.")
    return tuple(model.anatomy.check_layer(l) for l in layers)


def described(model: Model, asked: Asked, layers: tuple[int, ...], score: str) -> dict[str, Any]:
    """The part of a map that does not depend on what was patched."""
    answer, foil, tokens = asked.texts(model)
    return {
        "fact": asked.fact,
        "answer": answer,
        "foil": foil,
        "known": asked.known,
        "tokens": tokens,
        "subject": (asked.subject[0], asked.subject[-1] + 1),
        "layers": layers,
        "score": score,
    }


def own_cells(patched: np.ndarray, rows: Rows, i: int) -> np.ndarray:
    """The cells of fact i, of shape (tokens, layers, samples, scored)."""
    return patched[rows.of[i], rows.offset[i] :].transpose(1, 2, 0, 3)
