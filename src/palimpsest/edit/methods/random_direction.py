"""The control of every edit: another method's edit with its content drawn at random.

The method named by `like` makes its edit dW = A S B^T (singular values S). Then, with Q and R random orthonormal,

    keep="nothing"   dW' = Q S R^T    as large as dW, at the same weight, of the same rank: in no direction of its own
    keep="keys"      dW' = Q S B^T    also the same inputs are heard (the key side); what is then said is random

so that dW' has the norm of dW, in Frobenius as in any other norm of singular values. What such an edit does to a score, a change
of that size does there anyway: only what `like` does beyond it is due to its content. A change of a matrix held dense (fine-tuning,
or a batch of more facts than factors pay for) is drawn alike; one of a bias or a norm is a normal draw of equal length.

`draw` numbers the draws. Each fact, weight and number has its own, so that an average over facts is one over directions.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.artefact import Edit
from palimpsest.edit.payload import Acting, Dense, LowRank, Payload, module_of
from palimpsest.edit.registry import editor
from palimpsest.edit.settings import at_least, one_of
from palimpsest.errors import EditError, SettingError
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.model.anatomy import is_linear, stores_transposed
from palimpsest.runs import Progress


class RandomDirection:
    """Random edits as large as those of another method.

    Args:
        model: read, never changed.
        preset: of the other method.
        like: the other method.
        keep: "nothing" or "keys".
        draw: number of the draw; 0, 1, 2, ... are independent.
        progress: handed to the other method.
        settings: of the other method, its seed among them.

    Raises:
        SettingError: an unknown method, preset or setting, or a value out of range.
    """

    name = "random"
    resumable = True  # handed on to the other method

    def __init__(
        self,
        model: Model,
        *,
        preset: str = "fixed",
        like: str = "rome",
        keep: str = "nothing",
        draw: int = 0,
        progress: Progress | None = None,
        **settings: Any,
    ) -> None:
        one_of("The random edit", "keep", keep, ("nothing", "keys"))
        at_least("The random edit", "draw", draw, 0)
        if like == self.name:
            raise SettingError("The random edit is like another method, got 'random' itself; name one with like=....")
        self.model, self.keep, self.draw = model, keep, draw
        self.like = editor(model, like, preset=preset, progress=progress, **settings)

    @property
    def card(self) -> dict[str, Any]:
        """Every setting in force; under "like" those of the other method, and its name."""
        card = dict(self.like.card)
        return {
            "preset": card.get("preset"),
            "keep": self.keep,
            "draw": self.draw,
            "like": {"method": self.like.name, **card},
        }

    def edit(self, facts: Sequence[Fact]) -> Edit:
        """The other method's edit with random content. `notes` of the edit holds those of the other method and its norm.

        Raises:
            EditError: the other edit acts by hooks; or what the other method raises.
        """
        made = self.like.edit(facts)
        payloads = tuple(self._drawn(payload, made.facts) for payload in made.payloads)
        notes = {**made.notes, "like": [{"method": self.like.name, "norm": made.norm}]}
        return Edit.made_for(self.model, self.name, payloads, made.facts, self.card, notes)

    def _drawn(self, payload: Payload, facts: Sequence[Fact]) -> LowRank | Dense:
        if isinstance(payload, Acting):
            raise EditError(
                f"{self.like.name} changes no weight but {payload.site}, for which there is no random edit."
            )
        named = f"{self.draw} {payload.path} {[fact.id for fact in facts]}"
        seed = int.from_bytes(hashlib.blake2b(named.encode(), digest_size=7).digest(), "big")
        generator = torch.Generator().manual_seed(seed)
        if isinstance(payload, LowRank):
            left, right = self._factors(*_spectrum(payload), payload.u.shape[0], generator)
            return LowRank(payload.path, left.to(payload.u), right.contiguous().to(payload.v))
        module = module_of(self.model, payload.path)
        if not is_linear(module) or payload.delta.dim() != 2:
            noise = torch.randn(payload.delta.shape, generator=generator, dtype=torch.float64)
            return Dense(payload.path, (noise * (payload.norm / noise.norm())).to(payload.delta))
        matrix = payload.delta.detach().double().cpu()
        matrix = matrix.T if stores_transposed(module) else matrix
        _, singular, keys = torch.linalg.svd(matrix, full_matrices=False)
        left, right = self._factors(singular, keys, matrix.shape[0], generator)
        drawn = left @ right
        return Dense(payload.path, (drawn.T if stores_transposed(module) else drawn).contiguous().to(payload.delta))

    def _factors(
        self, singular: Tensor, keys: Tensor, outputs: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "out rank"], Float[Tensor, "rank in"]]:
        """Q S, and R^T or the keys' side B^T."""
        rank = len(singular)
        left = _orthonormal(outputs, rank, generator)
        right = keys if self.keep == "keys" else _orthonormal(keys.shape[1], rank, generator).T
        return left * singular, right


def _spectrum(payload: LowRank) -> tuple[Float[Tensor, "rank"], Float[Tensor, "rank in"]]:
    """S and B^T of U V = A S B^T, without forming it, in float64 on the CPU."""
    q_u, r_u = torch.linalg.qr(payload.u.detach().double().cpu())
    q_v, r_v = torch.linalg.qr(payload.v.detach().double().cpu().T)
    _, singular, right = torch.linalg.svd(r_u @ r_v.T, full_matrices=False)
    return singular, right @ q_v.T


def _orthonormal(size: int, rank: int, generator: torch.Generator) -> Float[Tensor, "size rank"]:
    """Columns of a random rotation: the QR of a normal draw, with the signs that make it uniform."""
    q, r = torch.linalg.qr(torch.randn(size, rank, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()
