"""Corruptions: what is done to a prompt so that the model no longer knows whom, or what, it is asked about.

    noise      each of S samples adds noise_level * N(0, 1) to the embedding of every subject token, at the output of the
               token embedding (Meng et al. 2022, section 2.1); the level is `SPREADS` = 3 times the standard deviation of
               the embeddings of subjects, measured at that same place
    swap       each sample puts another subject of the same relation, with another answer and as many tokens, in the
               subject's place (symmetric token replacement, Zhang and Nanda 2024, section 2): it stays on distribution
    mean       the embedding of every subject token becomes the mean embedding of the tokens of all subjects
    relation   noise as above on every token that is *not* of the subject: a control, not a way to find the subject

`noise` and `relation` have S samples, `swap` as many as there are such subjects (at most S), `mean` has one.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.errors import FactError, SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.model import EMBED, Model, Tap, pad
from palimpsest.model.tokens import Encoded

SPREADS = 3.0
CORRUPTIONS = ("noise", "swap", "mean", "relation")
SUBJECTS_AT_ONCE = 256


@dataclass(frozen=True)
class Corrupted:
    """One prompt, corrupted in S ways; all rows are as long as the prompt.

    Attributes:
        ids: token ids, one row a sample.
        positions: of the corrupted tokens.
        added: what is added to the embeddings at `positions`, if anything.
        instead: what takes their place, if anything.
        subjects: the other subject of each row, for a swap.
    """

    ids: tuple[tuple[int, ...], ...]
    positions: tuple[int, ...]
    added: Float[Tensor, "samples positions width"] | None = None
    instead: Float[Tensor, "positions width"] | None = None
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corruption:
    """How prompts are corrupted.

    Attributes:
        kind: one of `CORRUPTIONS`.
        samples: S, the number of draws or of other subjects.
        noise_level: standard deviation of the noise (noise and relation).
        seed: of the noise and of the choice of subjects.
        shared: one draw for all facts with as many corrupted tokens, as in the published code.
        pool: facts whose subjects are swapped in, and whose mean is taken.
        swap_with: these subjects, and no others, are swapped in.
        mean: what `mean` puts in, measured once for all facts.
    """

    kind: str = "noise"
    samples: int = 10
    noise_level: float = 0.0
    seed: int = 1
    shared: bool = False
    pool: tuple[Fact, ...] = ()
    swap_with: tuple[str, ...] = ()
    mean: Float[Tensor, "width"] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in CORRUPTIONS:
            raise SettingError(f"There is no corruption {self.kind!r}.{did_you_mean(self.kind, CORRUPTIONS)}")
        if self.samples < 1:
            raise SettingError(f"A corruption needs at least one sample, got {self.samples}.")
        if not 0 <= self.noise_level < float("inf"):
            raise SettingError(f"A corruption needs a noise_level of 0 or more, got {self.noise_level}.")

    @property
    def card(self) -> dict[str, object]:
        """The settings as plain data; the pool as a hash of what is used of it."""
        used = sorted((fact.subject, fact.relation, str(fact.target_true)) for fact in self.pool)
        return {
            "samples": self.samples,
            "noise_level": self.noise_level if self.kind in ("noise", "relation") else None,
            "seed": self.seed,
            "swap_with": list(self.swap_with),
            "pool": hashlib.sha256(repr(used).encode()).hexdigest()[:16],
        }

    def of(self, model: Model, fact: Fact, encoded: Encoded, *, draw: int = 0) -> Corrupted:
        """The corrupted rows of one prompt; `draw` counts the noise draws made before (of one random stream).

        Raises:
            FactError: nothing can be corrupted: no other subject fits, or no token stands beside the subject.
        """
        subject = tuple(encoded.tokens_of(*fact.subject_span))
        if self.kind == "swap":
            return swapped(model, fact, encoded, self.pool, self.samples, seed=self.seed, swap_with=self.swap_with)
        if self.kind == "mean":
            mean = subject_embeddings(model, self.pool or (fact,)).mean(0) if self.mean is None else self.mean
            return Corrupted((encoded.ids,), subject, instead=mean.expand(len(subject), -1))
        positions = subject
        if self.kind == "relation":
            positions = tuple(i for i, (a, b) in enumerate(encoded.offsets) if a < b and i not in subject)
            if not positions:
                raise FactError(f"The prompt {fact.text!r} has no token beside its subject, so there is no relation.")
        noise = noise_draw(
            self.samples,
            len(positions),
            model.anatomy.width,
            seed=self.seed,
            fact=None if self.shared else fact,
            draw=draw,
        )
        return Corrupted((encoded.ids,) * self.samples, positions, added=self.noise_level * noise)


def swapped(
    model: Model,
    fact: Fact,
    encoded: Encoded,
    pool: Sequence[Fact],
    most: int,
    *,
    seed: int,
    swap_with: Sequence[str] = (),
) -> Corrupted:
    """Rows in which another subject of the relation, with another answer and as many tokens, stands in the prompt.

    Raises:
        FactError: there is no such subject.
    """
    subject = encoded.tokens_of(*fact.subject_span)
    own = {str(fact.target_true).casefold(), *(name.casefold() for name in fact.answer_aliases)}
    others = [name for name in dict.fromkeys(swap_with) if name.casefold() != fact.subject.casefold()]
    if not swap_with:
        others = sorted(
            {
                other.subject
                for other in pool
                if other.relation == fact.relation
                and other.subject.casefold() != fact.subject.casefold()
                and (fact.target_true is None or str(other.target_true).casefold() not in own)
            }
        )
    order = np.random.RandomState(seed_of(fact, seed))
    rows, chosen = [], []
    for i in range(len(others)) if swap_with else order.permutation(len(others)):
        begin = fact.subject_span[0]
        text = fact.prompt.replace("{}", others[i])
        row = model.encode(text)
        same_place = row.tokens_of(begin, begin + len(others[i])) == subject
        around = [k for k in range(len(encoded)) if k not in subject]
        if len(row) == len(encoded) and same_place and all(row.ids[k] == encoded.ids[k] for k in around):
            rows.append(row.ids)
            chosen.append(others[i])
        if len(rows) == most:
            break
    if not rows:
        raise FactError(
            f"None of the {len(others)} other subjects of the relation {fact.relation!r} has the {len(subject)} tokens of "
            f"{fact.subject!r} and another answer; name some with swap_with, or corrupt with noise."
        )
    return Corrupted(tuple(rows), tuple(subject), subjects=tuple(chosen))


def seed_of(fact: Fact, seed: int) -> int:
    """A seed of 32 bits of its own for each fact and seed, the same on every machine."""
    name = f"{seed}\0{fact.subject}\0{fact.prompt}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=4).digest(), "big")


def subject_embeddings(model: Model, facts: Sequence[Fact], *, distinct: bool = True) -> Float[Tensor, "tokens width"]:
    """The embeddings of all tokens of the subjects of `facts`, each subject once (once a fact, unless `distinct`)."""
    subjects = sorted({fact.subject for fact in facts}) if distinct else [fact.subject for fact in facts]
    parts = []
    for begin in range(0, len(subjects), SUBJECTS_AT_ONCE):
        some = subjects[begin : begin + SUBJECTS_AT_ONCE]
        batch = pad([model.tokenizer(subject, add_special_tokens=False).input_ids for subject in some])
        parts.append(model.record(batch, [EMBED])[EMBED][batch.mask.bool().to(model.device)])
    return torch.cat(parts)


def embedding_spread(model: Model, facts: Sequence[Fact], *, distinct: bool = True) -> float:
    """Standard deviation over all entries of the embeddings of all subject tokens of `facts`.

    The published code takes the subjects of all its facts, those that recur as often as they do (`distinct` false).
    """
    return float(subject_embeddings(model, facts, distinct=distinct).double().std())


def noise_draw(
    samples: int, tokens: int, width: int, *, seed: int, fact: Fact | None, draw: int = 0
) -> Float[Tensor, "samples tokens width"]:
    """Standard normal noise in float64, the same for a fact, a seed and a shape on every machine.

    With `fact` None the draw depends on the shape only and begins with `RandomState(seed)`, as in the published code, where
    all facts with as many subject tokens share one draw. `draw` is how many draws of that shape come before, of the same
    random stream.
    """
    stream = np.random.RandomState(seed if fact is None else seed_of(fact, seed))
    for _ in range(draw):
        stream.randn(samples, tokens, width)
    return torch.from_numpy(stream.randn(samples, tokens, width))


def embedding_taps(
    rows: Sequence[tuple[Corrupted, int, int]], width: int, columns: int
) -> Callable[[int], Sequence[Tap]]:
    """Taps that corrupt the embeddings of a batch, as a function of the first column of a run.

    Args:
        rows: per row its corruption, the sample in it, and the column of the prompt's first token.
        width: of the embeddings.
        columns: of the whole batch.
    """
    if all(corrupted.added is None and corrupted.instead is None for corrupted, _, _ in rows):
        return lambda first: ()
    added = torch.zeros(len(rows), columns, width, dtype=torch.float64)
    kept = torch.ones(len(rows), columns, 1, dtype=torch.bool)
    for row, (corrupted, sample, offset) in enumerate(rows):
        at = torch.tensor(corrupted.positions) + offset
        if corrupted.added is not None:
            added[row, at] = corrupted.added[sample]
        elif corrupted.instead is not None:
            added[row, at], kept[row, at] = corrupted.instead.double().cpu(), False

    def taps(first: int) -> Sequence[Tap]:
        def corrupt(embedded: Tensor) -> Tensor:
            # in float64 and rounded once, as in the published code; on the CPU, because not every device has it
            there = slice(first, first + embedded.shape[1])
            return (embedded.cpu().double() * kept[:, there] + added[:, there]).to(embedded)

        return (Tap(EMBED, corrupt),)

    return taps
