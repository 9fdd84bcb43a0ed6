"""The logit lens as a readout: how far the old answer stands above others after each layer, at the last token.

    advantage(l) = [W_U norm(h_l)]_answer - mean over others of [W_U norm(h_l)]_other        in nats, first tokens

h_l is the residual stream after layer l, norm and W_U the network's own (nostalgebraist 2020; `palimpsest.locate.logit_lens`).
At the last layer it is the advantage in the model's own output. Columns are layers, on the prompt and on each of the first
paraphrases.

`standing` is the other half of the picture: at every layer, the rank of the old and of the new answer among the whole
vocabulary and their probability. Ranks have no base rate of their own; the scores above are what is compared with controls.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.erase.residue.pair import Pair
from palimpsest.erase.residue.readout import Column, Table
from palimpsest.erase.residue.states import (
    PARAPHRASES,
    LastStates,
    OutputBasis,
    StreamReader,
    Wanted,
    above_others,
    asked_as,
    paths,
)
from palimpsest.errors import InputError, SettingError
from palimpsest.locate.answers import first_token
from palimpsest.locate.reading.lens import decode
from palimpsest.model import Model

MEASURES = ("rank", "probability")


@dataclass(frozen=True)
class LogitLens:
    """The readout.

    Attributes:
        paraphrases: how many are read beside the prompt.
    """

    paraphrases: int = PARAPHRASES
    name: str = "logit lens"

    def __post_init__(self) -> None:
        check_paraphrases(self.paraphrases)

    def fit(self, model: Model, pairs: Sequence[Pair]) -> "LensReader":
        """Nothing needs fitting."""
        return LensReader(self.name, self.paraphrases)


class LensReader(StreamReader):
    """Reads every layer through the final norm and head."""

    def __init__(self, name: str, paraphrases: int) -> None:
        super().__init__()
        self.name, self.paraphrases = name, paraphrases

    def texts(self, pairs: Sequence[Pair]) -> list[str]:
        """The prompt and the first paraphrases of every pair."""
        return [text for pair in pairs for text in asked_as(pair.fact, self.paraphrases).values()]

    def translated(self, states: Float[Tensor, "rows layers width"]) -> Float[Tensor, "rows layers width"]:
        """States as the head is to read them: as they are."""
        return states

    def score(self, model: Model, states: LastStates, pairs: Sequence[Pair]) -> Table:
        """Advantage of the answer's first token, a column for each path and layer."""
        layers, basis = model.n_layers, OutputBasis(model)
        scores = np.full((len(pairs), len(paths(self.paraphrases)) * layers), np.nan)
        columns: list[Column] = []
        for p, path in enumerate(paths(self.paraphrases)):
            columns += [Column(self.name, path, layer) for layer in range(layers)]
            asked = [asked_as(pair.fact, self.paraphrases).get(path) for pair in pairs]
            wanted = Wanted.on(model, states, pairs, asked, self.first_tokens)
            if wanted.pairs:
                read = basis.logits(self.translated(states.resid[wanted.states]), wanted.tokens)
                scores[wanted.pairs, p * layers : (p + 1) * layers] = above_others(read, wanted.counts)
        return Table(tuple(columns), scores)

    @torch.no_grad()
    def standing(
        self, model: Model, states: LastStates, pairs: Sequence[Pair]
    ) -> Float[np.ndarray, "pairs layers answers measures"]:
        """Rank and probability of the old answer (0) and of the new one (1) at each layer, after the prompt; NaN without one."""
        found = np.full((len(pairs), model.n_layers, 2, len(MEASURES)), np.nan)
        for i, pair in enumerate(pairs):
            if pair.fact.text not in states.place:
                continue
            own = self.translated(states.resid[[states.place[pair.fact.text]]])[0]
            own = own.to(model.device, model.anatomy.embedding.weight.dtype)  # type: ignore[arg-type]
            logits = torch.cat([part.cpu() for part in decode(model, own)])
            for a, answer in enumerate((pair.answer, pair.fact.target_new)):
                token = None if answer is None else token_of(model, pair.fact.text, answer)
                if token is not None:
                    found[i, :, a] = _standing(logits, token)
        return found


def token_of(model: Model, text: str, answer: str) -> int | None:
    """First token of `answer` after `text`; None where there is none."""
    try:
        return first_token(model, text, answer)
    except (InputError, IndexError):
        return None


def check_paraphrases(paraphrases: int) -> None:
    """Raise `SettingError` unless the number is 0 or more."""
    if paraphrases < 0:
        raise SettingError(f"The number of paraphrases that are read must be 0 or more, got {paraphrases}.")


def _standing(logits: Float[Tensor, "layers vocabulary"], token: int) -> Float[np.ndarray, "layers measures"]:
    own = logits[:, token, None]
    rank: Int[Tensor, layers] = 1 + (logits > own).sum(1)
    probability = (own[:, 0] - logits.logsumexp(1)).exp()
    return torch.stack([rank.double(), probability.double()], dim=1).numpy()
