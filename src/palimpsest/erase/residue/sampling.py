"""The attack with a budget (Patil, Hase and Bansal 2024): an answer is recovered if it is among B candidates.

    output     the B likeliest tokens after the prompt
    lens       the B likeliest tokens that any of the last layers would say (their "head projection attack")
    sampled    B texts drawn after the prompt and its paraphrases in turn (their "input rephrasing attack")

    score      1 when the answer is among the B candidates, else 0; and beside it, with no budget,
    rank       -log rank of the answer's first token, in the output or where it is best among the last layers

A deletion counts as a success only when the attack with the largest budget fails. Likely words are among 20 candidates anyway:
that is what the controls are for. Candidates that are tokens recover the first token of an answer; drawn texts the words of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.settings import whole
from palimpsest.erase.residue.advantage import require_finite
from palimpsest.erase.residue.pair import Pair
from palimpsest.erase.residue.readout import Column, Table
from palimpsest.errors import SettingError
from palimpsest.evaluate.answering import answer
from palimpsest.evaluate.asks import Written
from palimpsest.evaluate.words import begins
from palimpsest.locate.answers import by_length, prompt_and_token
from palimpsest.locate.reading.lens import decode
from palimpsest.model import Model, Site, pad


@dataclass(frozen=True)
class Sampling:
    """The readout: whether an answer is among B candidates.

    Attributes:
        budgets: each B.
        layers: of the lens: so many of the last, the very last apart, which is the output.
        draws: whether texts are drawn; they cost most of the readout.
        wordings: at most so many, the prompt first, are asked in turn by the texts drawn.
        tokens: of a text drawn.
        top_k: each token is drawn from so many likeliest, at temperature 1.
        seed: of the drawing; every text drawn has a generator of its own.
    """

    budgets: tuple[int, ...] = (1, 5, 20)
    layers: int = 4
    draws: bool = True
    wordings: int = 4
    tokens: int = 6
    top_k: int = 50
    seed: int = 0
    name: str = "sampling"

    def __post_init__(self) -> None:
        if not self.budgets:
            raise SettingError("The sampling readout needs at least one budget B, got none; give (1, 5, 20).")
        for budget in self.budgets:
            whole("The sampling readout", "budget B", budget, 1)
        for name in ("layers", "wordings", "tokens", "top_k"):
            whole("The sampling readout", name, getattr(self, name), 1)

    def fit(self, model: Model, pairs: Sequence[Pair]) -> "Sampling":
        """Nothing is fitted."""
        return self

    def read(self, model: Model, pairs: Sequence[Pair]) -> Table:
        """Ranks, and whether each budget finds the answer."""
        ranks = self._ranks(model, pairs)
        columns, scores = [], []
        for path, rank in zip(("output", "lens"), ranks, strict=True):
            columns.append(Column(self.name, f"{path} rank"))
            scores.append(-np.log(rank))
            for budget in self.budgets:
                columns.append(Column(self.name, f"{path} B={budget}"))
                scores.append((rank <= budget).astype(float))
        if self.draws:
            found = self._drawn(model, pairs)
            for budget in self.budgets:
                columns.append(Column(self.name, f"sampled B={budget}"))
                scores.append(found[:, :budget].any(axis=1).astype(float))
        return Table(tuple(columns), np.stack(scores, axis=1))

    @torch.no_grad()
    def _ranks(self, model: Model, pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
        """Rank of the answer's first token in the output, and the best one among the last layers."""
        asked = [prompt_and_token(model, pair.fact.text, pair.answer) for pair in pairs]
        numbers = {ids: i for i, ids in enumerate(dict.fromkeys(encoded.ids for encoded, _ in asked))}
        states = self._states(model, list(numbers))
        rows = torch.tensor([numbers[encoded.ids] for encoded, _ in asked])
        wanted = torch.tensor([token for _, token in asked])
        ranks = np.stack([_rank(model, states[rows, j], wanted) for j in range(states.shape[1])], axis=1)
        return ranks[:, -1], ranks[:, :-1].min(axis=1) if ranks.shape[1] > 1 else ranks[:, -1]

    def _states(self, model: Model, texts: Sequence[tuple[int, ...]]) -> Float[Tensor, "texts layers width"]:
        """The residual stream after the last token of each text, in the last layers."""
        sites = [Site("resid_out", l) for l in range(max(0, model.n_layers - 1 - self.layers), model.n_layers)]
        states: list[Tensor] = [torch.empty(0)] * len(texts)
        for group in by_length([len(ids) for ids in texts]):
            batch = pad([texts[i] for i in group])
            with model.evaluating():
                found = model.record(batch, sites)
            last, every = batch.last.to(model.device), torch.arange(len(group), device=model.device)
            for row, i in enumerate(group):
                states[i] = torch.stack([found[site][every[row], last[row]] for site in sites])
        return torch.stack(states)

    def _drawn(self, model: Model, pairs: Sequence[Pair]) -> np.ndarray:
        """Whether each text drawn, in the order of drawing, begins with the answer."""
        asks = [[self._ask(pair, number) for number in range(max(self.budgets))] for pair in pairs]
        answers = answer(model, [ask for row in asks for ask in row])
        return np.array(
            [[begins(answers.written(ask), pair.answer) for ask in row] for pair, row in zip(pairs, asks, strict=True)]
        )

    def _ask(self, pair: Pair, number: int) -> Written:
        wordings = pair.fact.wordings[: self.wordings]
        text = wordings[number % len(wordings)]
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        return Written(text, tokens=self.tokens, top_k=self.top_k, seed=seed)


def _rank(model: Model, states: Tensor, wanted: Tensor) -> np.ndarray:
    """1 + how many tokens are likelier than the wanted one, read by the network's own norm and head."""
    ranks: list[np.ndarray] = []
    with model.evaluating():
        for logits in decode(model, states):
            tokens = wanted[sum(map(len, ranks)) :][: len(logits), None].to(logits.device)
            own = logits.gather(1, tokens)
            require_finite(own.cpu().double().numpy(), "output", model)
            ranks.append(1 + (logits > own).sum(1).cpu().numpy())
    return np.concatenate(ranks)
