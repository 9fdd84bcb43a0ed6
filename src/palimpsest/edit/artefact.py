"""`Edit`: an edit as a thing. It is data; it changes a model only while, and where, it is applied.

    edit = palimpsest.edit(model, [fact], method="rome")
    with edit.applied(model, dose=1.0):
        ...                                  # edited
    ...                                      # every weight as it was, bit for bit

Undo restores the stored weights and never subtracts: W + d - d differs from W in the last bit of some entries.

Edits of the same weights add up: `edit + other` is one edit whose change is the sum of both, whichever comes first.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from palimpsest.edit.payload import Acting, Cost, Payload, Routed, Routing, described, module_of, refuse_quantised
from palimpsest.edit.rounding import Rounding, rounding_of
from palimpsest.edit.sums import compact, plus_acting
from palimpsest.edit.sums import total as total
from palimpsest.errors import EditError, SettingError, WeightError
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.model.anatomy import is_linear, stores_transposed
from palimpsest.model.model import hash_tensor

if TYPE_CHECKING:
    from palimpsest.edit.checkpoint import Checkpoint
    from palimpsest.edit.lora import Adapter


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
        layouts: how the model stores each weight it changes: `dtype`, `shape`, and `order`, which is "out in", "in out"
            (GPT-2's Conv1D), or "" for what is no linear map.
    """

    method: str
    payloads: tuple[Payload, ...]
    facts: tuple[Fact, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    layouts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

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
        """An edit of `model` as it is now: hashes its weights and notes the versions of the libraries.

        Every method makes its edit here, and only here the orientation of each weight is at hand, so this is where payloads
        are made `compact`.
        """
        changed = [payload.path for payload in payloads if not isinstance(payload, Acting)]
        if len(set(changed)) != len(changed):
            raise EditError("An edit holds at most one payload for a weight; add those of one weight together.")
        paths = sorted({*changed, *(path for p in payloads if isinstance(p, Acting) for path in _weights_at(model, p))})
        weights = {path: hash_tensor(model.parameter(path)) for path in paths}
        settings = {"model": model.name, **json.loads(json.dumps(dict(settings or {})))}
        layouts = {path: layout_of(model, path) for path in changed}
        payloads = tuple(
            p if isinstance(p, Acting) else compact(p, transposed=_is_transposed(layouts[p.path])) for p in payloads
        )
        return cls(method, payloads, facts, settings, weights, dict(notes or {}), versions(), layouts)

    def __repr__(self) -> str:
        places = ", ".join(p.path if not isinstance(p, Acting) else str(p.site) for p in self.payloads)
        return f"Edit({self.method!r}, {len(self.facts)} facts, {places})"

    @property
    def norm(self) -> float:
        """Frobenius norm of the whole change of weights (and of the hooks' maps)."""
        return float(sum(payload.norm**2 for payload in self.payloads) ** 0.5)

    @property
    def size(self) -> int:
        """Bytes of what it holds: tensors, and the texts of memories."""
        return sum(
            p.size if isinstance(p, Routed) else sum(t.numel() * t.element_size() for t in p.tensors().values())
            for p in self.payloads
        )

    def cost(self, model: Model) -> Cost:
        """What its memories add to a run of `model`; a change of weights adds nothing."""
        return sum((p.cost(model) for p in self.payloads if isinstance(p, Routed)), Cost(0))

    def routing(self, model: Model, texts: Sequence[str]) -> list[list[Routing]]:
        """For each text, what each of the memories does with it on the unedited `model`; nothing needs to be applied."""
        self.check_fits(model)
        each = [p.routing(model, texts) for p in self.payloads if isinstance(p, Routed)]
        return [[found[i] for found in each] for i in range(len(texts))]

    def fingerprint(self) -> str:
        """SHA-256 over facts, payloads (kind, place and numbers) and the hashes of the weights it was made for."""
        digest = hashlib.sha256(json.dumps([fact.to_json() for fact in self.facts], sort_keys=True).encode())
        digest.update(json.dumps(dict(self.weights), sort_keys=True).encode())
        for payload in self.payloads:
            digest.update(json.dumps(described(payload), sort_keys=True).encode())
            for name, tensor in sorted(payload.tensors().items()):
                digest.update(f"{name}{hash_tensor(tensor)}".encode())
        return digest.hexdigest()

    def __add__(self, other: "Edit") -> "Edit":
        """One edit whose change is the sum of both; the order matters only for rounding and for the order of the facts.

        Its facts are those of both, each once. `settings["parts"]` and `notes["parts"]` hold those of every edit that was
        added, in order, with its method.

        Raises:
            EditError: both change one weight but were made for different values of it, or have hooks or memories at one site
                that cannot be added.
        """
        for path in sorted(self.weights.keys() & other.weights.keys()):
            if self.weights[path] != other.weights[path]:
                raise EditError(
                    f"{self!r} and {other!r} cannot be added, because they were made for different values of {path} "
                    f"({self.weights[path][:12]} and {other.weights[path][:12]}); apply one after the other, or make both "
                    f"for the same model."
                )
        layouts = {**self.layouts, **other.layouts}
        transposed = {path for path, layout in layouts.items() if _is_transposed(layout)}
        changes = [p for p in (*self.payloads, *other.payloads) if not isinstance(p, Acting)]
        known = all(p.path in layouts for p in changes)  # files of the first version do not say it
        sums = total(changes, transposed if known else None)
        sums = tuple(compact(p, transposed=p.path in transposed) if known else p for p in sums)
        hooks = [p for p in self.payloads if isinstance(p, Acting)]
        for hook in (p for p in other.payloads if isinstance(p, Acting)):
            i = next((i for i, mine in enumerate(hooks) if mine.site == hook.site), None)
            hooks = [*hooks, hook] if i is None else [*hooks[:i], plus_acting(hooks[i], hook), *hooks[i + 1 :]]
        parts = [*_parts(self), *_parts(other)]
        return Edit(
            " + ".join(part["method"] for part in parts),
            (*sums, *hooks),
            tuple(dict.fromkeys((*self.facts, *other.facts))),
            {
                "model": self.settings.get("model", "unknown"),
                "parts": [{"method": part["method"], "settings": part["settings"]} for part in parts],
            },
            {**self.weights, **other.weights},
            {"parts": [{"method": part["method"], "notes": part["notes"]} for part in parts]},
            versions(),
            layouts,
        )

    def rounding(self, model: Model, dose: float = 1.0) -> dict[str, Rounding]:
        """What the type of each weight would cost at `dose`: see `palimpsest.edit.rounding`."""
        check_dose(dose)
        self._check_can_write(model)
        return rounding_of(self.payloads, model, dose)

    def _check_can_write(self, model: Model) -> None:
        for payload in self.payloads:
            if not isinstance(payload, Acting):
                refuse_quantised(model, payload.path)  # before the hashes: "other weights" would not say what to do
        self.check_fits(model)

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
            EditError: it is applied already, a weight is quantised, or a number would not be finite.
            SettingError: the dose is not a finite number.
        """
        check_dose(dose)
        if any(entry.edit is self for entry in model.applied):
            raise EditError(f"{self!r} is applied already; undo it first.")
        self._check_can_write(model)
        entry = _Applied(self, {}, ExitStack())
        try:
            if dose != 0:
                for payload in self.payloads:
                    if isinstance(payload, Acting):
                        entry.hooks.enter_context(payload.installed(model, dose))
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

    def to_lora(
        self, folder: str | PathLike[str], *, dose: float = 1.0, model: str | PathLike[str] | Model | None = None
    ) -> "Adapter":
        """Write a LoRA adapter that PEFT loads: see `palimpsest.edit.lora`."""
        from palimpsest.edit.lora import write_adapter

        return write_adapter(self, folder, dose=dose, model=model)

    def apply_to_checkpoint(
        self, source: str | PathLike[str] | Model, out: str | PathLike[str], dose: float = 1.0
    ) -> "Checkpoint":
        """Write an edited checkpoint folder that plain transformers loads: see `palimpsest.edit.checkpoint`."""
        from palimpsest.edit.checkpoint import apply_to_checkpoint

        return apply_to_checkpoint(self, source, out, dose)

    def undo_checkpoint(self, folder: str | PathLike[str], out: str | PathLike[str] | None = None) -> "Checkpoint":
        """Take this edit out of a checkpoint that `apply_to_checkpoint` wrote; it must be the last one written there."""
        from palimpsest.edit.checkpoint import undo_checkpoint

        return undo_checkpoint(folder, out, edit=self)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Edit":
        """Read what `save` wrote; raises `EditError` when the file is not an edit."""
        from palimpsest.edit.file import load_edit

        return load_edit(path)


def check_dose(dose: float) -> None:
    """Raise `SettingError` unless `dose` is a finite number."""
    if not math.isfinite(dose):
        raise SettingError(f"The dose of an edit must be a finite number, got {dose}; 1 is the whole edit.")


def versions() -> dict[str, str]:
    """Of palimpsest, torch and transformers, as edits and results record them."""
    import transformers

    import palimpsest

    return {
        "palimpsest": palimpsest.__version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }


def _parts(edit: Edit) -> list[dict[str, Any]]:
    """The edits a sum was made of, or the edit itself: sums of sums are flat, so that brackets do not matter."""
    if "parts" not in edit.settings:
        return [{"method": edit.method, "settings": dict(edit.settings), "notes": dict(edit.notes)}]
    notes = edit.notes.get("parts", [])
    return [
        {**part, "notes": notes[i]["notes"] if i < len(notes) else {}} for i, part in enumerate(edit.settings["parts"])
    ]


def layout_of(model: Model, path: str) -> dict[str, Any]:
    """How `model` stores the weight at `path`: see `Edit.layouts`."""
    weight, module = model.parameter(path), module_of(model, path)
    matrix = is_linear(module) and path.endswith("weight")
    return {
        "dtype": str(weight.dtype).removeprefix("torch."),
        "shape": list(weight.shape),
        "order": ("in out" if stores_transposed(module) else "out in") if matrix else "",
    }


def _is_transposed(layout: Mapping[str, Any]) -> bool:
    return layout["order"] == "in out"


def _weights_at(model: Model, hook: Acting) -> list[str]:
    """Weights of the layer a hook or memory acts in (of the embedding for `embed`): what its map was fitted to."""
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
