"""KE's network: gates on the gradient, from reading what is asked (De Cao et al. 2021, equations 5 to 7).

A bidirectional LSTM reads the request, "prompt | new answer | old answer", in the model's own token embeddings, and its last states
give a vector h. For each edited map, with G the gradient of the new answer's loss and a small network of h giving vectors alpha,
beta (out), gamma, delta (in) and a number eta,

    W  <-  W + largest * sigmoid(eta) * ( (softmax(alpha) gamma^T) * G  +  softmax(beta) delta^T )

where * between matrices is by entries: the first gate scales what the gradient says, the second adds a rank of its own. With
G = sum_t d_t u_t^T (`palimpsest.edit.learned.signals`) the first term is sum_t (softmax(alpha) * d_t) (gamma * u_t)^T, so the
change has a rank of at most tokens + 1 and is never formed whole.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from palimpsest.edit.learned.mend import Factors, Words
from palimpsest.edit.learned.signals import Signal


class KeNetwork(nn.Module):
    """The editor network for maps of given shapes.

    Args:
        shapes: path of each map to (outputs, inputs).
        width: of the model's embeddings.
        hidden: of the LSTM in each direction, and of the layer before the gates.
        condition: width of h.
        largest: max_scale.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, int]], width: int, hidden: int, condition: int, largest: float
    ) -> None:
        super().__init__()
        self.shapes, self.largest = dict(shapes), largest
        self.paths = list(shapes)
        self.separator = nn.Parameter(torch.zeros(width))
        self.reader = nn.LSTM(width, hidden, bidirectional=True, batch_first=True)
        self.condition = nn.Linear(2 * hidden, condition)
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Linear(condition, hidden), nn.Tanh(), nn.Linear(hidden, 2 * (shape[0] + shape[1]) + 1))
            for shape in shapes.values()
        )

    def learn_scale(self, found: Sequence[Mapping[str, Signal]]) -> dict[str, Float[Tensor, "3 size"]]:
        """Nothing: KE normalises nothing."""
        return {}

    def add_scale(self, sums: Mapping[str, Float[Tensor, "3 size"]]) -> None:
        """Nothing."""

    def read(self, words: Float[Tensor, "parts_tokens width"], ends: Sequence[int]) -> Float[Tensor, "condition"]:
        """h of one request: the embeddings of its parts one after the other, each part ending at one of `ends`."""
        parts = [words[begin:end] for begin, end in zip((0, *ends[:-1]), ends, strict=True)]
        joined = [piece for part in parts for piece in (part, self.separator[None])][:-1]
        _, (state, _) = self.reader(torch.cat(joined)[None])
        return self.condition(state[:, 0].flatten())

    def factors(self, signals: Mapping[str, Signal], words: Sequence[Words]) -> Factors:
        """The change of each map, summed over the requests (rows); `words` holds embeddings and ends of each."""
        read = [self.read(embedded, ends) for embedded, ends in words]
        changes: Factors = {}
        for path, signal in signals.items():
            left, right = [], []
            for row, h in enumerate(read):
                ours = signal.rows == row
                u, v = self.gated(path, h, signal.inputs[ours], signal.errors[ours])
                left.append(u)
                right.append(v)
            changes[path] = (torch.cat(left, dim=1), torch.cat(right))
        return changes

    def gated(
        self,
        path: str,
        h: Float[Tensor, "condition"],
        inputs: Float[Tensor, "tokens in_"],
        errors: Float[Tensor, "tokens out"],
    ) -> tuple[Float[Tensor, "out rank"], Float[Tensor, "rank in_"]]:
        """The factors of one request's change of one map."""
        out, width = self.shapes[path]
        made = self.gates[self.paths.index(path)](h)
        alpha, beta, gamma, delta, eta = made.split([out, out, width, width, 1])
        scale = self.largest * eta.sigmoid()
        left = torch.cat([errors * alpha.softmax(0), beta.softmax(0)[None]]).T
        return scale * left, torch.cat([inputs * gamma, delta[None]])
