"""`Edit`: an edit as a thing. It is data; it changes a model only while, and where, it is applied.

    edit = palimpsest.edit(model, [fact], method="rome")
    with edit.applied(model, dose=1.0):
        ...                                  # edited
    ...                                      # every weight as it was, bit for bit

Undo restores the stored weights and never subtracts: W + d - d differs from W in the last bit of some entries.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from palimpsest.edit.payload import Dense, Hook, LowRank, Payload
from palimpsest.errors import EditError, SettingError, WeightError
from palimpsest.facts import Fact
from palimpsest.model import Model, tapped
from palimpsest.model.model import hash_tensor


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of a model, with everything needed to know what it is.

    Attributes:
        method: the name of the method that made it.
        payloads: what changes; at most one payload a weight.
        facts: the facts it was made for.
        settings: every setting of the method, the preset's name among them.
        weights: SHA-256 of each weight it was made for (for a hook, those of the layer it acts in); a model with other
            weights is refused.
        notes: what the method measured while it worked (per fact), for people.
        versions: of palimpsest, torch and transformers.
    """

    method: str
    payloads: tuple[Payload, ...]
    facts: tuple[Fact, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def made_for(
        cls,
        model: Model,
        method: str,
        payloads: tuple[Payload, ...],
        facts: tuple[Fact, ...] = (),
        settings: Mapping[str, Any] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> "Edit":
        """An edit of `model` as it is now: hashes its weights and notes the versions of the libraries."""
        changed = [payload.path for payload in payloads if not isinstance(payload, Hook)]
        if len(set(changed)) != len(changed):
            raise EditError("An edit holds at most one payload for a weight; add those of one weight together.")
        paths = sorted({*changed, *(path for p in payloads if isinstance(p, Hook) for path in _weights_at(model, p))})
        weights = {path: hash_tensor(model.parameter(path)) for path in paths}
        settings = {"model": model.name, **json.loads(json.dumps(dict(settings or {})))}
        return cls(method, payloads, facts, settings, weights, dict(notes or {}), versions())

    def __repr__(self) -> str:
        places = ", ".join(p.path if not isinstance(p, Hook) else str(p.site) for p in self.payloads)
        return f"Edit({self.method!r}, {len(self.facts)} facts, {places})"

    @property
    def norm(self) -> float:
        """Frobenius norm of the whole change of weights (and of the hooks' maps)."""
        return float(sum(payload.norm**2 for payload in self.payloads) ** 0.5)

    def fingerprint(self) -> str:
        """SHA-256 over facts, payloads and the hashes of the weights it was made for."""
        digest = hashlib.sha256(json.dumps([fact.to_json() for fact in self.facts], sort_keys=True).encode())
        digest.update(json.dumps(dict(self.weights), sort_keys=True).encode())
        for payload in self.payloads:
            for name, tensor in sorted(payload.tensors().items()):
                digest.update(f"{name}{hash_tensor(tensor)}".encode())
        return digest.hexdigest()

    def check_fits(self, model: Model) -> None:
        """Raise `WeightError` unless every weight is, bit for bit, the one this edit was made for."""
        for path, expected in self.weights.items():
            found = hash_tensor(model.parameter(path))
            if found != expected:
                raise WeightError(
                    f"This edit was made for other weights: {path} of {model.name} has the hash {found[:12]}, the edit expects "
                    f"{expected[:12]}; load the model it was made for ({self.settings.get('model', 'unknown')}) "
                    f"or undo what was applied since."
                )

    def apply(self, model: Model, dose: float = 1.0) -> None:
        """Write the edit into `model` until `undo`; dose 0 writes nothing.

        Raises:
            WeightError: the weights are not those the edit was made for.
            EditError: it is applied already.
            SettingError: the dose is not a finite number.
        """
        if not math.isfinite(dose):
            raise SettingError(f"The dose of an edit must be a finite number, got {dose}; 1 is the whole edit.")
        if any(entry.edit is self for entry in model.applied):
            raise EditError(f"{self!r} is applied already; undo it first.")
        self.check_fits(model)
        entry = _Applied(self, {}, ExitStack())
        try:
            if dose != 0:
                for payload in self.payloads:
                    if isinstance(payload, Hook):
                        entry.hooks.enter_context(tapped(model.anatomy, [payload.tap(dose)]))
                    else:
                        weight, new = model.parameter(payload.path), payload.new_weight(model, dose)
                        entry.stored[payload.path] = weight.detach().clone()
                        with torch.no_grad():
                            weight.copy_(new)
        except BaseException:
            entry.restore(model)
            raise
        model.applied.append(entry)

    def undo(self, model: Model) -> None:
        """Restore the weights that `apply` stored.

        Raises:
            EditError: this edit is not applied, or a later edit of the same weight still is.
        """
        i = next((i for i, entry in enumerate(model.applied) if entry.edit is self), None)
        if i is None:
            raise EditError(f"{self!r} is not applied to {model.name}; there is nothing to undo.")
        entry = model.applied[i]
        for later in model.applied[i + 1 :]:
            shared = entry.stored.keys() & later.stored.keys()
            if shared:
                raise EditError(f"Undo {later.edit!r} first: it was applied later and changes {sorted(shared)[0]} too.")
        entry.restore(model)
        del model.applied[i]

    @contextmanager
    def applied(self, model: Model, dose: float = 1.0) -> Iterator[Model]:
        """`apply`, then the block, then `undo`, also after an error."""
        self.apply(model, dose)
        try:
            yield model
        finally:
            self.undo(model)

    def save(self, path: str | PathLike[str]) -> None:
        """Write one self-describing safetensors file: see `palimpsest.edit.file`."""
        from palimpsest.edit.file import save_edit

        save_edit(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Edit":
        """Read what `save` wrote; raises `EditError` when the file is not an edit."""
        from palimpsest.edit.file import load_edit

        return load_edit(path)


def versions() -> dict[str, str]:
    """Of palimpsest, torch and transformers, as edits and results record them."""
    import transformers

    import palimpsest

    return {
        "palimpsest": palimpsest.__version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }


def _weights_at(model: Model, hook: Hook) -> list[str]:
    """Weights of the layer a hook acts in (of the embedding for `embed`): what its map was fitted to."""
    if hook.site.kind == "embed":
        return [path for path, weight in model.net.named_parameters() if weight is model.anatomy.embedding.weight]
    block = f"{model.anatomy.layers[model.anatomy.check_layer(hook.site.layer)].block.path}."
    return [path for path, _ in model.net.named_parameters() if path.startswith(block)]


@dataclass
class _Applied:
    """One edit that is in the model now, and what it replaced."""

    edit: Edit
    stored: dict[str, Tensor]
    hooks: ExitStack

    def restore(self, model: Model) -> None:
        self.hooks.close()
        with torch.no_grad():
            for path, original in self.stored.items():
                model.parameter(path).copy_(original)


def total(edits: list[LowRank | Dense]) -> tuple[LowRank | Dense, ...]:
    """Payloads of several edits as one payload a weight: low ranks stay factors, a dense one makes the sum dense."""
    sums: dict[str, LowRank | Dense] = {}
    for payload in edits:
        before = sums.get(payload.path)
        if before is None:
            sums[payload.path] = payload
        elif isinstance(before, LowRank) and isinstance(payload, LowRank):
            sums[payload.path] = before.plus(payload)
        elif isinstance(before, Dense) and isinstance(payload, Dense):
            sums[payload.path] = Dense(payload.path, before.delta + payload.delta)
        else:
            raise EditError(
                f"{payload.path} has a low-rank and a dense edit; apply one after the other instead of adding them."
            )
    return tuple(sums.values())
