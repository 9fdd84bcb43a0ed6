"""Learning an editor: every step writes some records, each alone, and judges what that did to the model.

    phi <- Adam step on the mean over a batch of  c_e e(phi) + c_loc loc(phi)       (`palimpsest.edit.learned.objective`)

    path = train(model, facts, "editor", method="mend")
    edit = palimpsest.edit(model, [fact], method="mend", editor=path)

What does not depend on the editor is found once (`palimpsest.edit.learned.frozen`): a record takes longer the first time it comes.

Subjects that validate are never learned from. Learning stops when the validation has not become better for `patience` steps,
and the best network is the one that is kept. A run that was killed goes on from its last check point to the same bits.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.artefact import versions
from palimpsest.edit.learned.change import Network, chunks, network_of
from palimpsest.edit.learned.examples import Examples, asked, drawn, examples
from palimpsest.edit.learned.file import FILE, base_of, read_editor, save_editor
from palimpsest.edit.learned.frozen import MEMORY, Frozen
from palimpsest.edit.learned.mend import Factors
from palimpsest.edit.learned.objective import Constraint, judged
from palimpsest.edit.learned.ranks import Ranks, ranks
from palimpsest.edit.learned.settings import LAST, EditorSettings, settings_for
from palimpsest.edit.learned.signals import edited_maps
from palimpsest.edit.learned.state import State
from palimpsest.edit.payload import refuse_quantised
from palimpsest.edit.settings import at_least
from palimpsest.errors import EditError
from palimpsest.facts import Fact, Probe
from palimpsest.model import Model
from palimpsest.runs import Progress, check_writable
from palimpsest.runs.lock import Lock

CHECKPOINT, LOCK = "training.safetensors", ".lock"


def train(
    model: Model,
    records: Sequence[Fact],
    out: Path | str,
    *,
    method: str = "mend",
    preset: str = "fixed",
    every: int = 100,
    until: int | None = None,
    finish: bool = False,
    memory: float = MEMORY,
    progress: Progress | None = None,
    **settings: Any,
) -> Path:
    """Learn an editor for `model` and write it as out/editor.safetensors; the model is left as it was.

    Args:
        model: its own weights are never written to.
        records: facts with a `target_new`, a paraphrase and a text that must stay; others are left out and counted.
        out: folder; an interrupted training in it goes on, and a finished one is left as it is.
        method: "mend" or "ke".
        preset: "fixed", or the published "mend-2022" or "ke-2021".
        every: steps between check points.
        until: stop after this step, with a check point; to the end when None.
        finish: end there for good: the editor is the best network so far. A training that is past `until` ends where it is.
        memory: GiB that each process may take on the model's device for what does not change; with 0 every step finds all anew. The
            editor is the same whatever it is.
        progress: called with (step, steps, losses as text).
        settings: any field of `MendSettings` or `KeSettings` and of `Learning`.

    Returns:
        The path of the editor; of the check point where `until` came before the end.

    Raises:
        InputError: too few records can be used; a setting is wrong.
        EditError: edits are applied to the model, a weight is quantised, the loss is not finite, or the folder holds another
            training.
        OutputError: the folder cannot be written, or another process is training in it.
    """
    at_least("Learning", "memory", memory, 0)
    chosen = settings_for(method, preset, settings)
    split = examples(records, chosen.learning)
    if model.applied:
        raise EditError(
            f"{model.name} has {model.applied[-1].edit!r} applied; undo it, so that the editor learns from the base."
        )
    paths = edited_maps(model, chosen.layers, chosen.maps, LAST)
    for path in paths:
        refuse_quantised(model, f"{path}.weight")
    folder = check_writable(out)
    hashes, base = base_of(model)
    identity = _identity(method, chosen, split, paths, base)
    if _finished(folder, identity):
        return folder / FILE
    with ranks() as group, model.evaluating(), _alone(folder, group):
        state = _begun(model, chosen, paths, identity)
        state.restore(folder / CHECKPOINT)
        group.wait()  # until all have read it: the first would write the next
        _learn(Frozen(model, paths, memory), split, chosen, state, group, folder, every, until, progress)
        done = _over(state, chosen) or (finish and until is not None)
        if done and group.rank == 0:
            card = {
                "method": method,
                "settings": asdict(chosen),
                "paths": paths,
                "weights": {f"{path}.weight": hashes[f"{path}.weight"] for path in paths},
                "base": base,
                "model": model.name,
                "history": [entry for entry in state.history if entry["step"] is not None],
                "unedited": next(entry for entry in state.history if entry["step"] is None),
                "records": {
                    "learning": len(split.learning),
                    "validation": len(split.validation),
                    "left_out": split.left_out,
                },
                "identity": identity,
                "versions": versions(),
            }
            save_editor(folder / FILE, state.best, card)
            (folder / CHECKPOINT).unlink(missing_ok=True)
        group.wait()
    return folder / FILE if done else folder / CHECKPOINT


@contextmanager
def _alone(folder: Path, group: Ranks) -> Iterator[None]:
    """A lock on the folder, held by the one process that writes."""
    lock = Lock(folder / LOCK) if group.rank == 0 else None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _learn(
    frozen: Frozen,
    split: Examples,
    settings: EditorSettings,
    state: State,
    group: Ranks,
    folder: Path,
    every: int,
    until: int | None,
    progress: Progress | None,
) -> None:
    """Steps, validations and check points, until learning is over or `until` is reached."""
    learning = settings.learning
    if not state.history:
        state.history.append({"step": None, **_validated(frozen, split, settings, None, group)})
        _validate(frozen, split, settings, state, group)
    if progress:
        progress(state.step, learning.steps, "")
    while not _over(state, settings) and (until is None or state.step < until):
        e, loc = _step(frozen, split, settings, state, group)
        state.step += 1
        if state.step % learning.validate_every == 0 or state.step == learning.steps:
            _validate(frozen, split, settings, state, group)
        stops = _over(state, settings) or state.step == until
        if group.rank == 0 and (state.step % every == 0 or stops):
            state.keep(folder / CHECKPOINT)
        if progress:
            best = min(entry["score"] for entry in state.history if entry["step"] is not None)
            progress(state.step, learning.steps, f"nll {e:.3f}, kl {loc:.4f}, best validation {best:.4f}")


def _step(frozen: Frozen, split: Examples, settings: EditorSettings, state: State, group: Ranks) -> tuple[float, float]:
    """One step of Adam; returns the means of e and loc before it."""
    learning, network = settings.learning, state.network
    batch = drawn(split.learning, learning.batch, state.step, learning.seed)
    state.adam.zero_grad()
    seen = add_gradients(frozen, network, batch, learning.edit_weight, state.constraint.multiplier, group)
    e_mean, loc_mean = group.total(seen).tolist()
    if not e_mean + loc_mean < float("inf"):
        raise EditError(
            f"Learning diverged at step {state.step}: the loss is not finite; lower learning_rate, rate_rate or edit_rate."
        )
    for weight in network.parameters():
        weight.grad = group.total(torch.zeros_like(weight) if weight.grad is None else weight.grad)
    torch.nn.utils.clip_grad_norm_(network.parameters(), learning.clip)
    state.adam.step()
    state.constraint.after_step(settings, loc_mean)
    return e_mean, loc_mean


@torch.enable_grad()
def add_gradients(
    frozen: Frozen,
    network: Network,
    batch: Sequence[tuple[Fact, str, Probe]],
    edit_weight: float,
    multiplier: float,
    group: Ranks,
) -> Float[Tensor, "2"]:
    """This process's part of e and loc, means over `batch`, with the gradient of c_e e + multiplier loc added to the network's.

    What the batch adds to mu and sigma is added first, from all processes.
    """
    ours = group.share(batch)
    asked = [frozen.request(fact) for fact, _, _ in ours]
    sums = network.learn_scale([signals for signals, _ in asked])
    network.add_scale({kind: group.total(part) for kind, part in sums.items()})
    seen = torch.zeros(2, dtype=torch.float64)
    for some in chunks(frozen.model, frozen.paths, len(ours)):
        parts = [network.factors(asked[i][0], [asked[i][1]]) for i in some]
        e, loc = (of_each.sum() / len(batch) for of_each in judged(frozen, [ours[i] for i in some], parts))
        loss = edit_weight * e + multiplier * loc
        loss.backward(inputs=list(network.parameters()))  # and nothing into the model's own .grad
        seen += torch.tensor([float(e.detach()), float(loc.detach())], dtype=torch.float64)
    return seen


def _validate(frozen: Frozen, split: Examples, settings: EditorSettings, state: State, group: Ranks) -> None:
    """Add an entry to the history, and keep the network where it is the best so far."""
    entry = {"step": state.step, **_validated(frozen, split, settings, state, group)}
    earlier = [other["score"] for other in state.history if other["step"] is not None]
    state.history.append(entry)
    if not earlier or entry["score"] < min(earlier):
        state.best = {name: tensor.detach().clone() for name, tensor in state.network.state_dict().items()}
    state.constraint.after_validation(settings, entry["kl"])


@torch.no_grad()
def _validated(
    frozen: Frozen, split: Examples, settings: EditorSettings, state: State | None, group: Ranks
) -> dict[str, float]:
    """Means over the records that validate, each with a drawn wording and a drawn text; without an edit when `state` is None."""
    learning, sums = settings.learning, torch.zeros(2, dtype=torch.float64)
    fixed = [asked(fact, Random(f"validation {learning.seed} {i}")) for i, fact in enumerate(split.validation)]
    ours = group.share(fixed)
    for some in chunks(frozen.model, frozen.paths, len(ours)):
        parts: list[Factors] = [{} for _ in some]
        if state is not None:
            asked_of = [frozen.request(ours[i][0]) for i in some]
            parts = [state.network.factors(signals, [said]) for signals, said in asked_of]
        e, loc = judged(frozen, [ours[i] for i in some], parts)
        sums += torch.stack([e.double().sum(), loc.double().sum()]).cpu()
    e_mean, loc_mean = (group.total(sums) / len(fixed)).tolist()
    if not e_mean + loc_mean < float("inf"):
        raise EditError("The validation is not finite; lower learning_rate, rate_rate or edit_rate, or use float32.")
    score = learning.edit_weight * e_mean + learning.locality_weight * loc_mean
    return {"nll": e_mean, "kl": loc_mean, "score": score}


def _over(state: State, settings: EditorSettings) -> bool:
    """Whether all steps are taken, or the best validation is `patience` steps old."""
    entries = [entry for entry in state.history if entry["step"] is not None]
    if not entries:
        return False
    best = min(entries, key=lambda entry: entry["score"])
    return state.step >= settings.learning.steps or entries[-1]["step"] - best["step"] >= settings.learning.patience


def _begun(model: Model, settings: EditorSettings, paths: list[str], identity: str) -> State:
    network, learning = network_of(model, settings, paths), settings.learning
    rates = [weight for name, weight in network.named_parameters() if name == "rates"]
    others = [weight for name, weight in network.named_parameters() if name != "rates"]
    groups: list[dict[str, Any]] = [{"params": others, "lr": learning.learning_rate}]
    if rates:
        groups.append({"params": rates, "lr": learning.rate_rate})
    return State(identity, network, torch.optim.Adam(groups), Constraint.of(settings))


def _finished(folder: Path, identity: str) -> bool:
    """Whether the folder holds the editor of this very training; raises `EditError` where it holds another."""
    if not (folder / FILE).is_file():
        return False
    if read_editor(folder / FILE)[0]["identity"] != identity:
        raise EditError(f"{folder} holds an editor of another training already; choose another --out, or delete it.")
    return True


def _identity(method: str, settings: EditorSettings, split: Examples, paths: list[str], base: str) -> str:
    """Hash of all that decides what is learned."""
    facts = [fact.to_json() for fact in (*split.learning, *split.validation)]
    plain = [method, asdict(settings), facts, len(split.validation), paths, base]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
