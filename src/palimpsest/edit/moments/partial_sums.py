"""Sums of k k^T that are not finished yet, and the file that keeps them through a kill."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from palimpsest.edit.moments.triangle import pack, unpack
from palimpsest.runs import atomic_path, check_writable

FORMAT = "palimpsest-partial-moments/1"


@dataclass
class PartialSums:
    """Where a pass over a text stands.

    Attributes:
        totals: per layer the sum of k k^T so far, in float64; only the upper triangle means anything.
        batches: how many batches are in it.
        count: how many tokens.
        identity: hash of the model, the layers, the text, the budget and the way documents are batched.
    """

    totals: dict[int, Float[Tensor, "_ _"]]
    batches: int
    count: int
    identity: str

    @classmethod
    def begin(
        cls, widths: Mapping[int, int], cards: Mapping[int, dict[str, str]], batching: Sequence[int]
    ) -> "PartialSums":
        """Nothing read yet."""
        identity = hashlib.sha256(json.dumps([sorted(cards.items()), list(batching)], sort_keys=True).encode())
        totals = {layer: torch.zeros(width, width, dtype=torch.float64) for layer, width in widths.items()}
        return cls(totals, 0, 0, identity.hexdigest())

    def on(self, layer: int, device: torch.device) -> Float[Tensor, "d d"]:
        """The total of a layer, kept where its keys are, so that no product travels (where there is float64 at all)."""
        if device.type != "mps" and self.totals[layer].device != device:
            self.totals[layer] = self.totals[layer].to(device)
        return self.totals[layer]

    def save(self, path: Path) -> None:
        """Write it whole or not at all; raises `OutputError` when the place cannot be written."""
        check_writable(path.parent)
        card = {
            "format": FORMAT,
            "identity": self.identity,
            "batches": str(self.batches),
            "count": str(self.count),
        }
        with atomic_path(path) as temporary:
            save_file({str(layer): pack(total.cpu()) for layer, total in self.totals.items()}, temporary, card)

    def continue_from(self, path: Path) -> bool:
        """Take over what `save` wrote for this very pass; a file of another pass, or a damaged one, counts for nothing."""
        if not path.is_file():
            return False
        try:
            with safe_open(str(path), framework="pt") as file:
                card = file.metadata() or {}
                if (card.get("format"), card.get("identity")) != (FORMAT, self.identity):
                    return False
                totals = {
                    layer: unpack(file.get_tensor(str(layer)), len(total)) for layer, total in self.totals.items()
                }
                # all or nothing: only what was read whole is taken over
                self.batches, self.count, self.totals = int(card["batches"]), int(card["count"]), totals
                return True
        except (SafetensorError, KeyError, ValueError, OSError):
            return False
