"""A trained editor as one safetensors file, bound to the model it was trained for.

    tensors        the network's, by name
    __metadata__   {"palimpsest": JSON}, with
                       format     "palimpsest-editor/1"
                       method     "mend" or "ke"
                       settings   every setting it was trained with
                       paths      the linear maps it edits
                       weights    {path of each of their weights: SHA-256}
                       base       SHA-256 over all weights of the model, and "model", its name
                       history    every validation: step, nll after a paraphrase, kl on what must stay, score
                       unedited   the same without an edit, which is what an editor must beat
                       records    how many were learned from, validated on, and left out
                       identity   hash of all that decided what was learned
                       versions   of palimpsest, torch and transformers

An editor has learned from the gradients of one set of weights: on others its mean, its deviation and all it knows of directions are
wrong, with no sign of it. So another base is refused. A base that carries applied edits is still that base.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from palimpsest.edit.artefact import Edit
from palimpsest.edit.learned.change import Network, network_of, requests, together
from palimpsest.edit.learned.mend import Factors
from palimpsest.edit.learned.settings import settings_from
from palimpsest.edit.payload import LowRank, refuse_quantised
from palimpsest.edit.requests import checked
from palimpsest.errors import EditError, WeightError
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.model.model import hash_tensor
from palimpsest.runs import Progress, atomic_write

FORMAT, FILE = "palimpsest-editor/1", "editor.safetensors"
CHUNK = 16  # facts whose gradients are taken in one run


@dataclass(frozen=True, eq=False)
class Learned:
    """A trained editor and the model it edits.

    Attributes:
        model: the base, with or without edits applied.
        network: what was learned.
        card: what the file says of it.
    """

    model: Model
    network: Network
    card: Mapping[str, Any]

    @property
    def method(self) -> str:
        """ "mend" or "ke"."""
        return str(self.card["method"])

    @classmethod
    def load(cls, model: Model, path: str | PathLike[str]) -> "Learned":
        """Read the file at `path`, or the editor in the folder of `palimpsest train`.

        Raises:
            EditError: there is no such file, it is damaged, or it is no trained editor.
            WeightError: it was trained for another base.
        """
        card, tensors = read_editor(path)
        check_base(model, card, Path(path))
        try:
            network = network_of(model, settings_from(card["method"], card["settings"]), card["paths"])
            network.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise EditError(f"The editor {path} is damaged ({str(error).splitlines()[0]}); train it again.") from None
        return cls(model, network.requires_grad_(False).eval(), card)

    @torch.no_grad()
    def change(self, facts: Sequence[Fact], progress: Progress | None = None) -> tuple[Factors, list[dict[str, Any]]]:
        """The change of each map, and per fact its tokens and the loss of its new answer before the edit."""
        parts, notes = [], []
        for begin in range(0, len(facts), CHUNK):
            some = facts[begin : begin + CHUNK]
            found, words, losses = requests(self.model, some, self.card["paths"])
            for fact, signals, said, loss in zip(some, found, words, losses, strict=True):
                parts.append(self.network.factors(signals, [said]))
                tokens = max(len(signal.inputs) for signal in signals.values())
                notes.append({"fact": fact.id, "tokens": tokens, "nll_before": loss})
            if progress:
                progress(min(begin + CHUNK, len(facts)), len(facts), some[-1].id)
        return together(parts), notes

    def edit(self, facts: Sequence[Fact], progress: Progress | None = None) -> Edit:
        """An edit that writes `facts`: the sum of what each alone would be, a `LowRank` change of each map.

        Raises:
            FactError: a fact has no `target_new`.
            EditError: there is nothing to edit, facts contradict each other, or a weight is quantised.
        """
        facts = checked(facts)
        for path in self.card["paths"]:
            refuse_quantised(self.model, f"{path}.weight")
        factors, notes = self.change(facts, progress)
        payloads = tuple(
            LowRank(f"{path}.weight", u.contiguous().cpu(), v.contiguous().cpu()) for path, (u, v) in factors.items()
        )
        settings = {**self.card["settings"], "editor": self.card["identity"], "paths": list(self.card["paths"])}
        return Edit.made_for(self.model, self.method, payloads, facts, settings, {"facts": notes})


def save_editor(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write a trained editor, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **card}, ensure_ascii=False)
    atomic_write(path, to_bytes(plain, metadata={"palimpsest": text}))


def read_editor(path: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The card and the tensors of an editor file, or of the one in a folder; raises `EditError` where there is none."""
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise EditError(f"There is no trained editor {path}; make one with `palimpsest train`.")
    try:
        with safe_open(str(path), framework="pt") as file:
            card = json.loads((file.metadata() or {}).get("palimpsest", "{}"))
            found = card.get("format") if isinstance(card, dict) else None
            if found != FORMAT:
                raise EditError(f"{path} is not a trained editor: its format is {found!r}, expected {FORMAT!r}.")
            if missing := {"method", "settings", "paths", "weights", "base", "model", "identity"} - card.keys():
                raise EditError(f"The editor {path} is damaged (no {sorted(missing)[0]}); train it again.")
            return card, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise EditError(f"The editor {path} is damaged ({error}); train it again.") from None


def base_of(model: Model) -> tuple[dict[str, str], str]:
    """SHA-256 of every weight as it is without the applied edits, and one over all of them (`Model.fingerprint`)."""
    stored: dict[str, Tensor] = {}
    for entry in model.applied:
        stored = {**entry.stored, **stored}  # the first edit of a weight holds what it was
    hashes = {path: hash_tensor(stored.get(path, weight)) for path, weight in model.net.named_parameters()}
    digest = hashlib.sha256()
    for path, found in hashes.items():
        digest.update(path.encode())
        digest.update(found.encode())
    return hashes, digest.hexdigest()


def check_base(model: Model, card: Mapping[str, Any], path: Path) -> None:
    """Raise `WeightError` unless `model`, without its applied edits, is the one the editor was trained for."""
    hashes, whole = base_of(model)
    if whole == card["base"]:
        return
    other = next(
        (p for p, expected in card["weights"].items() if hashes.get(p) != expected), "a weight it does not edit"
    )
    raise WeightError(
        f"The editor {path} was trained for another base ({card['model']}): {other} of {model.name} is not the same; load that "
        f"model, or train an editor for this one."
    )
