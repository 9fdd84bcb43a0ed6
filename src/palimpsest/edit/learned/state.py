"""Check points of learning: one safetensors file from which the next step is the one an unbroken run would have taken.

    network/NAME, adam/MOMENT/NAME, best/NAME     tensors: the network, the optimiser's state, the best network so far
    __metadata__   identity, step, history, multiplier, margin, and a hash over all tensors

What a step reads depends on the seed and its number alone, so there is no generator to keep. The file is replaced in one
move: a kill leaves the old check point or the new one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from palimpsest.edit.learned.change import Network
from palimpsest.edit.learned.objective import Constraint
from palimpsest.errors import EditError
from palimpsest.model.model import hash_tensor
from palimpsest.runs import atomic_write

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class State:
    """Where learning stands.

    Attributes:
        identity: hash of all that decides what is learned.
        network, adam: what is learned, and its optimiser.
        constraint: see `palimpsest.edit.learned.objective`.
        step: steps taken.
        history: one entry for each validation.
        best: the network with the best validation so far.
    """

    identity: str
    network: Network
    adam: torch.optim.Adam
    constraint: Constraint
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, path: Path) -> None:
        """Write the check point."""
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self._tensors().items()}
        card = {
            "identity": self.identity,
            "step": self.step,
            "history": self.history,
            "multiplier": self.constraint.multiplier,
            "margin": self.constraint.margin,
            "sha256": _digest(tensors),
        }
        atomic_write(path, to_bytes(tensors, metadata={"palimpsest": json.dumps(card)}))

    def restore(self, path: Path) -> bool:
        """Take everything from the check point at `path`; False where there is none.

        Raises:
            EditError: it is damaged, or of another training.
        """
        if not path.is_file():
            return False
        advice = "delete it to learn from the beginning, or choose another --out"
        try:
            with safe_open(str(path), framework="pt") as file:
                card = json.loads((file.metadata() or {})["palimpsest"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            whole = card["sha256"] == _digest(tensors)
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise EditError(f"The check point {path} is damaged ({error}); {advice}.") from None
        if not whole:
            raise EditError(f"The check point {path} is damaged (its numbers have changed); {advice}.")
        if card["identity"] != self.identity:
            raise EditError(f"The check point {path} is of other records, settings or another model; {advice}.")
        self.step, self.history = card["step"], card["history"]
        self.constraint.multiplier, self.constraint.margin = card["multiplier"], card["margin"]
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}}
        for name, tensor in tensors.items():
            part, rest = name.split("/", 1)
            parts.setdefault(part, {})[rest] = tensor
        self.network.load_state_dict(parts["network"])
        self.best = parts["best"]
        for name, weight in self.network.named_parameters():
            if f"step/{name}" in parts.get("adam", {}):
                state = {moment: parts["adam"][f"{moment}/{name}"] for moment in MOMENTS}
                self.adam.state[weight] = {
                    moment: tensor if moment == "step" else tensor.to(weight.device) for moment, tensor in state.items()
                }
        return True

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        for name, weight in self.network.named_parameters():
            for moment, tensor in self.adam.state.get(weight, {}).items():
                tensors[f"adam/{moment}/{name}"] = tensor
        return tensors


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {hash_tensor(tensors[name])}".encode())
    return digest.hexdigest()
