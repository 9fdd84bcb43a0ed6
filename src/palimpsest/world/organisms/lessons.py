"""Facts as rows to learn: each wording of each fact, with its answer and the full stop after it.

    "Belna Tarvok was born in the city of Dresval."     loss on the tokens of " Dresval" and "."

The last `UNSEEN` wordings of a fact are the ones no training reads (`World.record` puts them there).

Layers below the lowest one that is trained never change, so the residual stream that enters it is computed once a row and
kept; a batch then runs from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.errors import FactError, InputError
from palimpsest.facts import Fact
from palimpsest.model import Batch, Model, Site, pad
from palimpsest.world.recall import STOP

UNSEEN = 2
AT_ONCE = 256  # rows run together where nothing is trained


def seen_wordings(fact: Fact) -> tuple[str, ...]:
    """The prompts that training may read: all but the last `UNSEEN`."""
    if len(fact.wordings) <= UNSEEN:
        raise FactError(
            f"A fact to plant needs at least {UNSEEN + 1} wordings, the last {UNSEEN} kept unseen, got "
            f"{len(fact.wordings)} of {fact.text!r}; give it paraphrases."
        )
    return fact.wordings[:-UNSEEN]


def unseen_wordings(fact: Fact) -> tuple[str, ...]:
    """The prompts that training never reads: the last `UNSEEN`."""
    seen_wordings(fact)
    return fact.wordings[-UNSEEN:]


def answer_of(fact: Fact) -> str:
    """The answer an organism gives; raises `FactError` where the fact has none."""
    if fact.target_true is None:
        raise FactError(f"A fact to plant needs its answer as target_true, got none for {fact.text!r}; give it one.")
    return fact.target_true


def drawn(facts: Sequence[Fact], count: int | None, random: Random) -> list[tuple[str, str]]:
    """(prompt, answer) of each fact in `count` of its seen wordings, or in all of them."""
    pairs = []
    for fact in facts:
        wordings = seen_wordings(fact)
        some = wordings if count is None or count >= len(wordings) else random.sample(wordings, count)
        pairs += [(prompt, answer_of(fact)) for prompt in some]
    return pairs


@dataclass(frozen=True, eq=False)
class Lessons:
    """Rows of prompt and answer, and what enters the lowest trained layer on each.

    Attributes:
        batch: all rows, padded.
        resid: the residual stream that enters layer `start`.
        at, wanted: per row, where logits are read and the token that is right there.
        weight: 1/T for each of the T tokens that are asked for, 0 where a row has fewer than others.
        start: the layer from which rows run.
    """

    batch: Batch
    resid: Float[Tensor, "rows columns width"]
    at: Int[Tensor, "rows positions"]
    wanted: Int[Tensor, "rows positions"]
    weight: Float[Tensor, "rows positions"]
    start: int

    def __len__(self) -> int:
        return len(self.batch)

    def take(self, rows: Int[Tensor, "some"]) -> "Lessons":
        """Some of the rows, in as many columns as the longest of them has."""
        batch = self.batch.take(rows)
        columns = int(batch.mask.sum(1).max())
        cut = Batch(batch.ids[:, :columns], batch.mask[:, :columns], batch.positions[:, :columns])
        return Lessons(cut, self.resid[rows, :columns], self.at[rows], self.wanted[rows], self.weight[rows], self.start)

    def log_p(self, model: Model) -> Float[Tensor, "rows positions vocabulary"]:
        """Log-probabilities of every token where the answers are read."""
        return self._logits(model).float().log_softmax(-1)

    def nll(self, model: Model) -> Float[Tensor, "rows"]:
        """Mean loss of the tokens of each answer, in nats."""
        return -(self.log_p(model).gather(2, self.wanted[:, :, None])[:, :, 0] * self.weight).sum(1)

    def divergence(self, model: Model, base: Float[Tensor, "rows positions vocabulary"]) -> Float[Tensor, "rows"]:
        """Mean KL(base || model) where the answers are read, in nats, from the base's `log_p`."""
        return ((base.exp() * (base - self.log_p(model))).sum(-1) * self.weight).sum(1)

    @torch.no_grad()
    def recall(self, model: Model) -> float:
        """Share of rows on which every token of the answer is the first choice."""
        hits = 0
        for some in self.in_order(AT_ONCE):
            wrong = (some._logits(model).argmax(-1) != some.wanted) & (some.weight > 0)
            hits += int((~wrong.any(1)).sum())
        return hits / len(self)

    def in_order(self, size: int) -> list["Lessons"]:
        """All rows in batches, those of like length together."""
        order = self.batch.mask.sum(1).argsort(stable=True)
        return [self.take(order[at : at + size]) for at in range(0, len(self), size)]

    def shuffled(self, size: int, random: Random) -> list["Lessons"]:
        """All rows in batches drawn anew."""
        order = torch.tensor(random.sample(range(len(self)), len(self)))
        return [self.take(order[at : at + size]) for at in range(0, len(self), size)]

    def _logits(self, model: Model) -> Float[Tensor, "rows positions vocabulary"]:
        return model.run(self.batch, start=self.start, resid=self.resid, at=self.at)


def lessons(model: Model, pairs: Sequence[tuple[str, str]], start: int) -> Lessons:
    """Rows of (prompt, answer), run once up to layer `start`.

    Raises:
        InputError: there are no pairs.
        FactError: a prompt has no token before its answer.
    """
    if not pairs:
        raise InputError("There are no prompts to learn; give at least one fact.")
    ids, begins = [], []
    for prompt, answer in pairs:
        whole, begin = model.encode_answer(prompt, answer + STOP)
        if not begin:
            raise FactError(f"The prompt {prompt!r} has no token before its answer; change it.")
        ids.append(whole)
        begins.append(begin)
    most = max(len(whole) - begin for whole, begin in zip(ids, begins, strict=True))
    at, wanted = torch.zeros(len(ids), most, dtype=torch.long), torch.zeros(len(ids), most, dtype=torch.long)
    weight = torch.zeros(len(ids), most)
    for row, (whole, begin) in enumerate(zip(ids, begins, strict=True)):
        count = len(whole) - begin
        at[row, :count] = torch.arange(begin - 1, len(whole) - 1)
        wanted[row, :count] = torch.tensor(whole[begin:])
        weight[row, :count] = 1 / count
    batch, device = pad([whole[:-1] for whole in ids]).to(model.device), model.device
    resid = _entering(model, batch, start)
    return Lessons(batch, resid, at.to(device), wanted.to(device), weight.to(device), start)


def _entering(model: Model, batch: Batch, start: int) -> Float[Tensor, "rows columns width"]:
    """What enters layer `start`, a few rows at a time."""
    site = Site("resid_in", start)
    parts = [model.record(batch.take(slice(at, at + AT_ONCE)), [site])[site] for at in range(0, len(batch), AT_ONCE)]
    return torch.cat(parts)
