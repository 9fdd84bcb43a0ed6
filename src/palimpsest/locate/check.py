"""`check_localizer`: the contract of an instrument that says which layers matter, as a test anyone can run on theirs.

    check_localizer(lambda model, fact: palimpsest.trace(model, fact, kind="mlp", window=1).effect, model, facts, module="mlp")

It raises `ContractError` with one sentence naming the first clause that does not hold:

    1  the result is finite numbers, of which the last axis is the layers
    2  the model is left as it was: weights, buffers, hooks, training modes, gradients; so are torch's and numpy's random states
    3  asked twice, the answer is the same; also after another fact was asked, and in training mode
    4  the padding side of the tokenizer changes nothing
    5  a fact whose subject opens the prompt, or is all of it, gets an answer or an `InputError`, nothing else
    6  where the module named works in one layer only (its output is zero in all others), that layer, and no other, has an
       effect; checked for every layer in turn

The last is the only one that asks for the truth: an instrument that fails it finds places that cannot matter. It holds for
what one layer does, so give instruments that patch windows of layers a window of 1.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from palimpsest.errors import ContractError, InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.tracing.patching import SITES
from palimpsest.model import Model, Site, Tap, tapped
from palimpsest.model.unchanged import hooks_of, modes_of, same_weights, weights_of

Localize = Callable[[Model, Fact], np.ndarray]
RESIDUE = 1e-3  # of the largest effect: what rounding may change, or leave at a layer that does nothing


def check_localizer(
    localize: Localize, model: Model, facts: Sequence[Fact], *, module: str | None = None
) -> np.ndarray:
    """Check that `localize` keeps the contract above on `model`; returns its answer to the first fact.

    Args:
        localize: gives an array of any number of axes, of which the last is the layers: larger where they matter more.
        model: small, because the contract asks some twenty times.
        facts: at least two.
        module: "mlp" or "attn" for an instrument that looks at one kind of module; None leaves out clause 6.

    Raises:
        ContractError: a clause does not hold.
        SettingError: there are fewer than two facts, or `module` is unknown.
    """
    if len(facts) < 2 or module not in (None, "mlp", "attn"):
        raise SettingError(
            f"A check needs two facts or more and a module 'mlp', 'attn' or None, got {len(facts)} and {module!r}."
        )
    weights, hooks, modes = weights_of(model), hooks_of(model), modes_of(model)
    random, numpy_random = torch.random.get_rng_state(), np.array(np.random.get_state()[1])  # type: ignore[index]
    first = _answer(localize, model, facts[0])
    _require(torch.equal(torch.random.get_rng_state(), random), "2: torch's random state must be left alone")
    _require(np.array_equal(np.random.get_state()[1], numpy_random), "2: numpy's random state must be left alone")  # type: ignore[index]
    _unchanged(model, weights, hooks, modes)
    _same(first, _answer(localize, model, facts[0]), "3: asked twice, the answer must be the same")
    _answer(localize, model, facts[1])
    _same(first, _answer(localize, model, facts[0]), "3: the answer must not depend on what was asked before")
    model.net.train()
    try:
        trained = _answer(localize, model, facts[0])
        _require(model.net.training, "2: a model in training mode must be left in it")
    finally:
        for name, part in model.net.named_modules():
            part.training = bool(modes[name])
    _same(first, trained, "3: dropout must be off while the model is read")
    _check_padding(localize, model, facts[0], first)
    _check_places(localize, model, facts[0])
    if module is not None:
        _check_truth(localize, model, facts[0], SITES[module])
    _unchanged(model, weights, hooks, modes)
    return first


def _answer(localize: Localize, model: Model, fact: Fact) -> np.ndarray:
    found = np.asarray(localize(model, fact))
    right = found.ndim >= 1 and found.shape[-1] == model.n_layers and np.issubdtype(found.dtype, np.number)
    _require(right, f"1: the last axis must be the {model.n_layers} layers, got the shape {found.shape}")
    _require(bool(np.isfinite(found).all()), "1: every number must be finite")
    return found


def _unchanged(
    model: Model, weights: dict[str, Tensor], hooks: dict[str, list[object]], modes: dict[str, object]
) -> None:
    differs = same_weights(model, weights)
    _require(not differs, f"2: no weight may change, but {differs} did")
    _require(hooks_of(model) == hooks, "2: no hook may be left behind")
    now = modes_of(model)
    changed = [name for name in modes if now[name] != modes[name]]
    _require(not changed, f"2: modes and gradients must be left alone, but those of {changed[:1]} changed")


def _check_padding(localize: Localize, model: Model, fact: Fact, expected: np.ndarray) -> None:
    side = model.tokenizer.padding_side
    other = copy.copy(model)
    other.tokenizer = copy.deepcopy(model.tokenizer)
    for padding in {"left", "right"} - {side}:
        other.tokenizer.padding_side = padding
        _same(expected, _answer(localize, other, fact), "4: the padding side must change nothing")


def _check_places(localize: Localize, model: Model, fact: Fact) -> None:
    for prompt in ("{} is", "{}"):
        moved = Fact(fact.subject, prompt, fact.target_true, fact.target_new)
        try:
            _answer(localize, model, moved)
        except (InputError, ContractError) as error:
            if isinstance(error, ContractError):
                raise
        except Exception as error:
            raise ContractError(
                f"The instrument breaks clause 5: {moved.text!r} must give an answer or an InputError, "
                f"got {type(error).__name__}: {error}."
            ) from error


def _check_truth(localize: Localize, model: Model, fact: Fact, kind: str) -> None:
    for alive in range(model.n_layers):
        # times zero and not zeros: instruments that take gradients find a graph, and zeros in it
        silent = [Tap(Site(kind, l), lambda output: output * 0) for l in range(model.n_layers) if l != alive]
        with tapped(model.anatomy, silent):
            found = np.abs(_answer(localize, model, fact)).reshape(-1, model.n_layers).max(axis=0)
        others = max((float(found[l]) for l in range(model.n_layers) if l != alive), default=0.0)
        _require(
            float(found[alive]) > 0 and others <= RESIDUE * float(found[alive]),
            f"6: with every other {kind} silent, layer {alive} must have all the effect, got {found.tolist()}",
        )


def _same(one: np.ndarray, other: np.ndarray, clause: str) -> None:
    rounding = RESIDUE * float(np.abs(one).max())
    _require(one.shape == other.shape and np.allclose(one, other, rtol=RESIDUE, atol=rounding), clause)


def _require(holds: bool, clause: str) -> None:
    if not holds:
        raise ContractError(f"The instrument breaks clause {clause}.")
