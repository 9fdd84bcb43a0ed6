"""Memory of a sequence: the keys of earlier edits, so that later ones do not trample them.

Each layer keeps F with F^T F = sum over earlier edits of k k^T. F holds the keys themselves while they are fewer than their
width d, and a triangular factor of d rows afterwards, so the memory of any sequence is bounded by d x d numbers a layer.

    MEMIT with a memory    A = lambda C + F^T F              (running moments)
    AlphaEdit              A = ridge I + F^T F               (its cache K_p K_p^T)

A memory belongs to one sequence. It is saved and loaded with it, as one safetensors file.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from palimpsest.errors import EditError
from palimpsest.runs import atomic_write

FORMAT = "palimpsest-memory/1"


class Memory:
    """Keys of earlier edits by layer; empty when made."""

    def __init__(self) -> None:
        self._factors: dict[int, Tensor] = {}
        self._counts: dict[int, int] = {}

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that have keys."""
        return tuple(sorted(self._factors))

    def count(self, layer: int) -> int:
        """How many keys were added at `layer`."""
        return self._counts.get(layer, 0)

    def copy(self) -> "Memory":
        """A memory of its own with the same keys."""
        other = Memory()
        other._factors, other._counts = dict(self._factors), dict(self._counts)
        return other

    def gram(self, layer: int) -> Float[Tensor, "d d"] | None:
        """F^T F in float64, or None where nothing was added."""
        factor = self._factors.get(layer)
        return None if factor is None else factor.T @ factor

    def add(self, layer: int, keys: Float[Tensor, "n d"]) -> None:
        """Remember `keys` (rows) at `layer`."""
        rows = keys.detach().cpu().double()
        before = self._factors.get(layer)
        stacked = rows if before is None else torch.cat([before, rows])
        if len(stacked) > stacked.shape[1]:
            stacked = torch.linalg.qr(stacked, mode="r").R
        self._factors[layer] = stacked
        self._counts[layer] = self.count(layer) + len(rows)

    def save(self, path: Path) -> None:
        """One file, written whole or not at all."""
        tensors = {str(layer): factor.contiguous() for layer, factor in self._factors.items()}
        counts = {f"count.{layer}": str(count) for layer, count in self._counts.items()}
        atomic_write(path, to_bytes(tensors, metadata={"format": FORMAT, **counts}))

    @classmethod
    def load(cls, path: Path) -> "Memory":
        """Read what `save` wrote; raises `EditError` when it is no memory or damaged."""
        memory = cls()
        try:
            with safe_open(str(path), framework="pt") as file:
                card = file.metadata() or {}
                if card.get("format") != FORMAT:
                    raise EditError(f"The file {path} holds no memory of a sequence (format {FORMAT}).")
                for name in list(file.keys()):
                    memory._factors[int(name)] = file.get_tensor(name)
                    memory._counts[int(name)] = int(card[f"count.{name}"])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise EditError(f"The memory {path} is damaged ({error}); save the sequence again.") from None
        return memory
