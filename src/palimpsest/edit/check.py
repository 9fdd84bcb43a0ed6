"""`check_editor`: the contract of an editing method, as a test anyone can run on theirs.

    check_editor(lambda model, facts: palimpsest.edit(model, facts, method="mine"), model, facts)

It raises `ContractError` with one sentence naming the first clause that does not hold:

     1  making an edit leaves every weight, and the logits, bit for bit as they were, and no hook behind
     2  the edit records its method, its facts and its settings
     3  made twice, it is the same edit
     4  dose 0 changes nothing, bit for bit
     5  applied, it changes the logits; more than that is the business of evaluation
     6  undone, every weight is bit for bit what it was, also after an error inside the block
     7  half the dose is half the change of weights (within the rounding of their type); text put before a prompt has no half
     8  saved and loaded, it gives identical logits
     9  a low-rank payload has factors of one rank: no more than the smaller side of its weight, no more numbers than the
        dense change, and no more than one for each fact (or `rank_per_fact`)
    10  a model whose weights differ is refused, and so is applying it twice
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from palimpsest.edit.artefact import Edit
from palimpsest.edit.payload import Acting, LowRank, Payload, Routed
from palimpsest.errors import ContractError, EditError, PalimpsestError, WeightError
from palimpsest.facts import Fact
from palimpsest.model import Model, pad
from palimpsest.model.unchanged import hooks_of, same_weights, weights_of

MakeEdit = Callable[[Model, Sequence[Fact]], Edit]


class _Deliberate(Exception):
    """Raised inside a block on purpose."""


def check_editor(make: MakeEdit, model: Model, facts: Sequence[Fact], *, rank_per_fact: int = 1) -> Edit:
    """Check that `make` keeps the contract above on `model`; returns the edit it made.

    Args:
        make: makes an edit of a model for facts.
        model: left as it was found, whatever happens.
        facts: each with a `target_new`.
        rank_per_fact: how many directions one fact may take in one weight; 1 for an editor of the ROME family, the number
            of neurons for one that rewrites each of several neurons in its own way.
    """
    with _left_as_found(model), model.evaluating():
        return _check(make, model, facts, rank_per_fact)


def _check(make: MakeEdit, model: Model, facts: Sequence[Fact], rank_per_fact: int) -> Edit:
    before, hooks, applied, logits = weights_of(model), hooks_of(model), len(model.applied), _logits(model, facts)
    edit = make(model, facts)
    _same_weights(model, before, "1: making an edit must not change weights")
    nothing_left = (
        hooks_of(model) == hooks and len(model.applied) == applied and torch.equal(_logits(model, facts), logits)
    )
    _require(nothing_left, "1: making an edit must not leave anything behind in the model")
    _require(bool(edit.method), "2: the edit must name its method")
    _require([f.id for f in edit.facts] == [f.id for f in facts], "2: the edit must record its facts in order")
    _require("model" in edit.settings, "2: the edit must record its settings (make it with Edit.made_for)")
    again = make(model, facts)
    _require(_equal(edit, again), "3: made twice, the edit must be the same (seed every draw)")
    with edit.applied(model, dose=0.0):
        _same_weights(model, before, "4: dose 0 must change no weight")
        _require(torch.equal(_logits(model, facts), logits), "4: dose 0 must change nothing")
    with edit.applied(model):
        edited = _logits(model, facts)
        whole = weights_of(model)
        _require(not torch.equal(edited, logits), "5: the applied edit must change the logits")
    _same_weights(model, before, "6: undo must restore every weight bit for bit")
    _require(torch.equal(_logits(model, facts), logits), "6: undo must restore the logits")
    _undone_after_error(edit, model, before)
    _check_half_dose(edit, model, before, whole)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edit.safetensors"
        edit.save(path)
        loaded = Edit.load(path)
    with loaded.applied(model):
        _require(torch.equal(_logits(model, facts), edited), "8: saved and loaded, the edit must give identical logits")
    _check_ranks(edit, len(facts), rank_per_fact)
    _check_refusals(edit, model)
    _same_weights(model, before, "6: the model must be left as it was found")
    return edit


def _require(holds: bool, clause: str) -> None:
    if not holds:
        raise ContractError(f"The editor breaks clause {clause}.")


@contextmanager
def _left_as_found(model: Model) -> Iterator[None]:
    """Put back weights and take away edits and hooks, whatever a bad editor did inside the block."""
    weights, applied, hooks = weights_of(model), list(model.applied), hooks_of(model)
    try:
        yield
    finally:
        for entry in [entry for entry in reversed(model.applied) if not any(entry is kept for kept in applied)]:
            entry.restore(model)
        model.applied[:] = applied
        for name, module in model.net.named_modules():
            for kind in (module._forward_hooks, module._forward_pre_hooks):
                for handle in [handle for handle in kind if handle not in hooks[name]]:
                    del kind[handle]
        with torch.no_grad():
            for path, weight in model.net.named_parameters():
                weight.copy_(weights[path])


def _same_weights(model: Model, before: dict[str, Tensor], clause: str) -> None:
    differs = same_weights(model, before)
    _require(not differs, f"{clause}, but {differs} differs")


def _logits(model: Model, facts: Sequence[Fact]) -> Tensor:
    return model.last_logits(pad([model.encode(fact.text).ids for fact in facts]))


def _equal(a: Edit, b: Edit) -> bool:
    if len(a.payloads) != len(b.payloads):
        return False
    for one, other in zip(a.payloads, b.payloads, strict=True):
        ours, theirs = one.tensors(), other.tensors()
        if _place(one) != _place(other) or any(not torch.equal(ours[name], theirs[name]) for name in ours):
            return False
    return True


def _place(payload: Payload) -> tuple[type, object]:
    return type(payload), payload.site if isinstance(payload, Acting) else payload.path


def _undone_after_error(edit: Edit, model: Model, before: dict[str, Tensor]) -> None:
    try:
        with edit.applied(model):
            raise _Deliberate
    except _Deliberate:
        pass
    _same_weights(model, before, "6: undo must restore every weight also after an error")


def _check_half_dose(edit: Edit, model: Model, before: dict[str, Tensor], whole: dict[str, Tensor]) -> None:
    if any(isinstance(payload, Routed) and not payload.graded for payload in edit.payloads):
        return
    with edit.applied(model, dose=0.5):
        half = weights_of(model)
    for path, base in before.items():
        full_step = (whole[path].double() - base.double()) / 2
        half_step = half[path].double() - base.double()
        largest = max(float(base.abs().max()), float(whole[path].abs().max()))
        rounding = 2 * torch.finfo(base.dtype).eps * largest
        _require(
            bool(((half_step - full_step).abs() <= rounding).all()), f"7: half the dose is half the change of {path}"
        )


def _check_ranks(edit: Edit, facts: int, rank_per_fact: int) -> None:
    for payload in edit.payloads:
        if not isinstance(payload, LowRank):
            continue
        (out, rank), (also_rank, width) = payload.u.shape, payload.v.shape
        _require(rank == also_rank, f"9: the factors of {payload.path} have the ranks {rank} and {also_rank}")
        _require(
            rank <= min(out, width),
            f"9: {payload.path} has factors of rank {rank}, more than the smaller side {min(out, width)} of its weight",
        )
        _require(
            rank * (out + width) <= out * width,
            f"9: {payload.path} has factors of rank {rank}, which hold more numbers than the dense change",
        )
        _require(
            rank <= rank_per_fact * facts,
            f"9: {payload.path} has factors of rank {rank} for {facts} facts; if that is meant, check it with "
            f"rank_per_fact={-(-rank // max(facts, 1))}",
        )


def _check_refusals(edit: Edit, model: Model) -> None:
    with edit.applied(model):
        _refused(EditError, lambda: edit.apply(model), "10: applying twice must be refused")
    _require(bool(edit.weights) or not edit.payloads, "10: the edit must record the weights it was made for")
    for path in edit.weights:
        weight = model.parameter(path)
        kept = weight.detach().clone()
        try:
            with torch.no_grad():
                weight.view(-1)[0] += 1
            _refused(WeightError, lambda: edit.apply(model), f"10: another {path} must be refused")
        finally:
            with torch.no_grad():
                weight.copy_(kept)


def _refused(kind: type[PalimpsestError], attempt: Callable[[], None], clause: str) -> None:
    try:
        attempt()
    except kind:
        return
    raise ContractError(f"The editor breaks clause {clause}.")
