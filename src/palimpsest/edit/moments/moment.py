"""`SecondMoment`: C = E[k k^T], and what editors ask of it.

    C^-1 k              where ROME and MEMIT write: along k, but where ordinary keys are small   (`solve`)
    lambda_max / min    how much of a key's error C^-1 can blow up                               (`condition`)
    U_s                 the directions ordinary text hardly uses, which AlphaEdit writes in      (`null_space`)

U_s are the eigenvectors of C with eigenvalues below a threshold (AlphaEdit, arXiv 2410.02355: 1e-2 in the paper, 2e-2 in its
code, on C divided by the number of keys). Eigenvalues have the scale of a model's keys, so on another model the threshold may
select nothing or everything; `energy` chooses by the share of the trace instead. Either way the share of directions is told
(`null_share`): below 5 % an edit has no room, above 95 % the projection protects nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.moments.provenance import TOKENS_PER_KEY_WIDTH, weights_below
from palimpsest.errors import EditError, SettingError, WeightError
from palimpsest.model import Model
from palimpsest.model.anatomy import in_out_features

NULL_THRESHOLD = 2e-2  # AlphaEdit's code
SAFE_SHARES = (0.05, 0.95)  # of all directions; outside of these a null space is no use to an editor

NULL_SPACES: Mapping[str, dict[str, float]] = {  # those told of by `SecondMoment.report`
    "threshold 0.02": {"threshold": 2e-2},
    "threshold 0.01": {"threshold": 1e-2},
    "energy 0.01": {"energy": 0.01},
}


@dataclass(frozen=True)
class SecondMoment:
    """C = (1 / count) * sum of k k^T, with where it came from.

    Attributes:
        matrix: C in float64.
        count: number of keys (tokens) in it; 0 where C was not measured.
        provenance: layer, module, hash of the weights below it, hash of the text, dtype of the forward pass.
    """

    matrix: Float[Tensor, "d d"]
    count: int
    provenance: dict[str, str]

    @property
    def width(self) -> int:
        """d, the width of the keys."""
        return int(self.matrix.shape[0])

    @cached_property
    def factor(self) -> Float[Tensor, "d d"]:
        """Lower Cholesky factor of C; raises `EditError` when C is singular and says how many tokens it takes."""
        factor, info = torch.linalg.cholesky_ex(self.matrix)
        if int(info) or not bool(torch.isfinite(factor).all()) or self._unseen:
            raise EditError(self._singular)
        return factor

    def solve(self, k: Float[Tensor, "d *n"]) -> Float[Tensor, "d *n"]:
        """C^-1 k in float64 for one key or for one a column (float32 factorisations lose three digits here)."""
        solved: Tensor = torch.cholesky_solve(k.double().reshape(len(k), -1), self.factor)
        return solved.reshape(k.shape)

    @cached_property
    def eigen(self) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
        """Eigenvalues in increasing order and their eigenvectors, one a column; computed once."""
        if not bool(torch.isfinite(self.matrix).all()):
            raise EditError(self._singular)
        eigenvalues, eigenvectors = torch.linalg.eigh(self.matrix)
        return eigenvalues, eigenvectors

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue."""
        eigenvalues, _ = self.eigen
        return float(eigenvalues[-1] / eigenvalues[0].clamp(min=1e-300))

    def null_size(self, threshold: float = NULL_THRESHOLD, *, energy: float | None = None) -> int:
        """Number m of directions in `null_space`, 0 included."""
        if threshold <= 0 or (energy is not None and not 0 < energy < 1):
            raise SettingError(
                f"A null space needs a threshold above 0, or an energy between 0 and 1; got threshold {threshold} and "
                f"energy {energy}."
            )
        eigenvalues, _ = self.eigen
        if energy is None:
            return int((eigenvalues < threshold).sum())
        held = eigenvalues.clamp(min=0).cumsum(0)
        return int((held <= energy * held[-1]).sum())

    def null_share(self, threshold: float = NULL_THRESHOLD, *, energy: float | None = None) -> float:
        """m / d: warn or refuse outside of `SAFE_SHARES`."""
        return self.null_size(threshold, energy=energy) / self.width

    def null_space(self, threshold: float = NULL_THRESHOLD, *, energy: float | None = None) -> Float[Tensor, "d m"]:
        """U_s: an orthonormal basis, in float64, of the directions that ordinary keys hardly use.

        Args:
            threshold: eigenvalues of C below it.
            energy: instead, as many of the smallest eigenvalues as hold at most this fraction of the trace together.

        Raises:
            EditError: there is no such direction, or too few tokens were read for what is unseen to be unused.
        """
        size = self.null_size(threshold, energy=energy)
        if self._unseen:
            raise EditError(self._singular)
        eigenvalues, eigenvectors = self.eigen
        if size == 0:
            asked = f"an energy of {energy}" if energy is not None else f"a threshold of {threshold}"
            raise EditError(
                f"The second moment of {self._module} has no null space at {asked}: its smallest eigenvalue is "
                f"{float(eigenvalues[0]):.2e} of a trace of {float(eigenvalues.sum()):.2e}; raise the threshold, or give an energy."
            )
        return eigenvectors[:, :size]

    @property
    def problem(self) -> str | None:
        """Why C cannot be solved with, in one sentence; None where it can."""
        try:
            _ = self.factor
        except EditError as error:
            return str(error)
        return None

    def report(self) -> dict[str, Any]:
        """Conditioning and null space as plain data, to be read before any edit.

        "condition" is None where C is singular, and "null_space" None where too few tokens were read to tell one.
        """
        eigenvalues, _ = self.eigen
        rooms = {name: _room(self.null_size(**chosen), self.width) for name, chosen in NULL_SPACES.items()}
        return {
            "module": self._module,
            "layer": self.provenance.get("layer"),
            "width": self.width,
            "tokens": self.count,
            "condition": self.condition if self.problem is None else None,
            "smallest_eigenvalue": float(eigenvalues[0]),
            "largest_eigenvalue": float(eigenvalues[-1]),
            "solvable": self.problem is None,
            "problem": self.problem,
            "null_space": None if self._unseen else rooms,
        }

    def check_made_for(self, model: Model, layer: int) -> None:
        """Raise `WeightError` unless C was measured on the weights that make the keys of `layer` of `model`.

        Moments without a hash of weights (the identity, files of other projects) are checked by width alone.
        """
        down = model.anatomy.down(layer)
        width, _ = in_out_features(down.module)
        if self.width != width:
            raise WeightError(
                f"The keys of layer {layer} are {width} wide, but the second moments given are {self.width} wide, those of another "
                f"model; measure this one's."
            )
        if "weights" not in self.provenance:
            return
        expected = {"module": down.path, "layer": str(layer), "weights": weights_below(model, [layer])[layer]}
        for name, value in expected.items():
            if (found := self.provenance.get(name)) != value:
                raise WeightError(
                    f"The second moments given are those of another model or layer: {name} is {str(found)[:40]}, but layer {layer} "
                    f"of {model.name} has {value[:40]}; measure this one's (palimpsest moments)."
                )

    @classmethod
    def identity(cls, width: int) -> "SecondMoment":
        """C = I, which leaves keys as they are."""
        return cls(torch.eye(width, dtype=torch.float64), 0, {"text": "identity"})

    @property
    def _unseen(self) -> bool:
        """Fewer keys than directions: some eigenvalues are 0 because nothing was read there, not because nothing is there."""
        return 0 < self.count < self.width

    @property
    def _module(self) -> str:
        return self.provenance.get("module", "the keys")

    @property
    def _singular(self) -> str:
        usual = TOKENS_PER_KEY_WIDTH * self.width
        more = f"{usual} tokens, the default," if self.count < usual else "more tokens"
        return (
            f"The second moment of {self._module} is singular: it is {self.width} wide and was measured on {self.count} tokens; "
            f"measure it on {more} of varied text."
        )


def _room(size: int, width: int) -> dict[str, Any]:
    share = size / width
    return {"size": size, "share": share, "safe": SAFE_SHARES[0] <= share <= SAFE_SHARES[1]}
