"""MEND's network: what it makes of the gradient of one fact (Mitchell et al. 2022, equations 1 to 4).

For each token t of an edited map l with inputs u_t and errors delta_t (`palimpsest.edit.learned.signals`),

    z  =  ([u_t; delta_t] - mu) / sigma                       mean and deviation of every entry, over what was seen in training
    h  =  z + relu(s1_l * (U1 V1 z + b1) + o1_l)
    y  =  h + s2_l * (U2 V2 h + b2) + o2_l                    [u~_t; delta~_t] = y
    W  <- W - alpha_l sum over t of delta~_t u~_t^T

U, V, b, mu and sigma are shared by all maps of one shape; the scales s_l, offsets o_l and rates alpha_l are each map's own. U
begins at zero, so an untrained editor is gradient descent on normalised inputs and errors. The last step has no relu, as in the
released code; the paper's equation has one in both.

The change is a product of two factors with a column for each token, and is never formed whole.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from palimpsest.edit.learned.signals import Signal

Factors = dict[str, tuple[Tensor, Tensor]]  # path -> U (out, rank) and V (rank, in), the change being U V
Words = tuple[Tensor, tuple[int, ...]]  # a request as embeddings, and where each of its parts ends


class MendNetwork(nn.Module):
    """The editor network for maps of given shapes.

    Args:
        shapes: path of each map to (outputs, inputs).
        rank: of U V, at most their width.
        edit_rate: alpha of every map to begin with.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, int]], rank: int, edit_rate: float) -> None:
        super().__init__()
        self.kinds = {path: f"{out}x{width}" for path, (out, width) in shapes.items()}
        groups: dict[str, list[str]] = {}
        for path, kind in self.kinds.items():
            groups.setdefault(kind, []).append(path)
        self.modes = {path: paths.index(path) for paths in groups.values() for path in paths}
        self.paths = list(shapes)
        sizes = {kind: sum(shapes[paths[0]]) for kind, paths in groups.items()}
        self.transforms = nn.ModuleDict({kind: Transform(sizes[kind], rank, len(groups[kind])) for kind in groups})
        self.seen = nn.ModuleDict({kind: Seen(sizes[kind]) for kind in groups})
        self.rates = nn.Parameter(torch.full((len(shapes),), float(edit_rate)))

    def learn_scale(self, found: Sequence[Mapping[str, Signal]]) -> dict[str, Float[Tensor, "3 size"]]:
        """Count, sum and sum of squares of what `found` would add to mu and sigma, for each shape; nothing is added yet."""
        sums = {kind: torch.zeros_like(self._seen(kind).sums) for kind in self.seen}
        for signals in found:
            for path, signal in signals.items():
                z = _joined(signal).double()
                sums[self.kinds[path]] += torch.stack([torch.full_like(z[:1].sum(0), len(z)), z.sum(0), (z * z).sum(0)])
        return sums

    def add_scale(self, sums: Mapping[str, Float[Tensor, "3 size"]]) -> None:
        """Add what `learn_scale` found."""
        for kind, part in sums.items():
            self._seen(kind).sums += part

    def _seen(self, kind: str) -> "Seen":
        seen = self.seen[kind]
        assert isinstance(seen, Seen)
        return seen

    def factors(self, signals: Mapping[str, Signal], words: Sequence[Words]) -> Factors:
        """The change of each map; `words` (what KE reads) is not looked at."""
        changes: Factors = {}
        for path, signal in signals.items():
            kind = self.kinds[path]
            y = self.transforms[kind](self.seen[kind](_joined(signal)), self.modes[path])
            inputs, errors = y.split([signal.inputs.shape[1], signal.errors.shape[1]], dim=1)
            changes[path] = (-self.rates[self.paths.index(path)] * errors.T, inputs)
        return changes


class Seen(nn.Module):
    """Mean and deviation of every entry of what training has seen; inputs pass unchanged before it has seen two."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.sums: Tensor
        self.register_buffer("sums", torch.zeros(3, size, dtype=torch.float64))  # count, sum, sum of squares

    def forward(self, z: Float[Tensor, "tokens size"]) -> Float[Tensor, "tokens size"]:
        """(z - mu) / sigma; an entry that never varied is centred only."""
        count, total, squares = self.sums.unbind(0)
        if float(count[0]) < 2:
            return z
        mean = total / count
        deviation = ((squares / count - mean * mean).clamp(min=0) * count / (count - 1)).sqrt()
        deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        return ((z.double() - mean) / deviation).to(z.dtype)


class Transform(nn.Module):
    """Two residual steps of low rank, the first with a relu; `mode` chooses scale and offset."""

    def __init__(self, size: int, rank: int, modes: int) -> None:
        super().__init__()
        self.first, self.second = Step(size, rank, modes), Step(size, rank, modes)

    def forward(self, z: Float[Tensor, "tokens size"], mode: int) -> Float[Tensor, "tokens size"]:
        """y of the module's text."""
        h = z + self.first(z, mode).relu()
        return h + self.second(h, mode)


class Step(nn.Module):
    """s * (U V z + b) + o, with U = 0 to begin with."""

    def __init__(self, size: int, rank: int, modes: int) -> None:
        super().__init__()
        rank = min(rank, size)
        self.u = nn.Parameter(torch.zeros(size, rank))
        self.v = nn.Parameter(nn.init.xavier_normal_(torch.empty(rank, size)))
        self.bias = nn.Parameter(torch.zeros(size))
        self.scale = nn.Parameter(torch.ones(modes, size))
        self.offset = nn.Parameter(torch.zeros(modes, size))

    def forward(self, z: Float[Tensor, "tokens size"], mode: int) -> Float[Tensor, "tokens size"]:
        """One step, before the residual is added."""
        return self.scale[mode] * (z @ self.v.T @ self.u.T + self.bias) + self.offset[mode]


def _joined(signal: Signal) -> Tensor:
    return torch.cat([signal.inputs, signal.errors], dim=1)
