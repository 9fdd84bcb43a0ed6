"""The contract of instruments: ours keep it, and broken ones are found out, each at its clause."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import palimpsest as pal
from oracles.small import FACTS, model_of
from palimpsest.errors import ContractError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate import check_localizer, reinitialised
from palimpsest.model import Model

MARGIN = {"samples": 2, "noise_level": 1.0}


def traced(kind: str, **settings: Any) -> Callable[[Model, Fact], np.ndarray]:
    return lambda model, fact: pal.trace(model, fact, kind=kind, window=1, **MARGIN, **settings).effect


def lesioned(kind: str, by: str) -> Callable[[Model, Fact], np.ndarray]:
    return lambda model, fact: pal.lesion(model, fact, kind=kind, window=1, by=by, spread_of=FACTS, **MARGIN).effect


OURS: dict[str, tuple[Callable[[Model, Fact], np.ndarray], str | None]] = {
    "trace state": (traced("state"), None),
    "trace mlp": (traced("mlp"), "mlp"),
    "trace attn": (traced("attn"), "attn"),
    "trace mlp, mean": (traced("mlp", corruption="mean"), "mlp"),
    "lesion mlp": (lesioned("mlp", "noise"), "mlp"),
    "lesion attn by resampling": (lesioned("attn", "resample"), "attn"),
    "lesion mlp by zero": (lesioned("mlp", "zero"), "mlp"),
    "knowledge neurons": (lambda model, fact: np.abs(pal.neurons(model, fact, steps=6).attr).sum(axis=1), "mlp"),
    "attention knock-out": (
        lambda model, fact: np.nan_to_num(pal.knockout(model, fact, window=1, controls=0).effect),
        "attn",
    ),
    "logit lens": (lambda model, fact: pal.logit_lens(model, fact).log_p, None),
}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_our_instruments_keep_the_contract(name: str, family: str) -> None:
    localize, module = OURS[name]
    model = model_of(family)
    found = check_localizer(localize, model, FACTS, module=module)
    assert found.shape[-1] == model.n_layers


good = traced("mlp")


def transposed(model: Model, fact: Fact) -> np.ndarray:
    return good(model, fact).T


def not_finite(model: Model, fact: Fact) -> np.ndarray:
    return good(model, fact) * np.nan


def random(model: Model, fact: Fact) -> np.ndarray:
    return np.random.default_rng().random(3)


def torch_random(model: Model, fact: Fact) -> np.ndarray:
    return torch.rand(3).numpy()


def leaves_a_hook(model: Model, fact: Fact) -> np.ndarray:
    model.anatomy.layers[0].block.module.register_forward_hook(lambda *_: None)
    return good(model, fact)


def changes_a_weight(model: Model, fact: Fact) -> np.ndarray:
    with torch.no_grad():
        next(iter(model.net.parameters())).add_(1e-3)
    return good(model, fact)


def leaves_gradients(model: Model, fact: Fact) -> np.ndarray:
    next(iter(model.net.parameters())).requires_grad_(True)
    return good(model, fact)


def heeds_dropout(model: Model, fact: Fact) -> np.ndarray:
    return good(model, fact) * (2 if model.net.training else 1)


def heeds_padding(model: Model, fact: Fact) -> np.ndarray:
    return good(model, fact) * (2 if model.tokenizer.padding_side == "left" else 1)


def numpy_random(model: Model, fact: Fact) -> np.ndarray:
    return good(model, fact) + 0 * np.random.rand()


def replaces_a_forward(model: Model, fact: Fact) -> np.ndarray:
    block = model.anatomy.layers[0].block.module
    block.forward = block.forward
    return good(model, fact)


def adds_a_buffer(model: Model, fact: Fact) -> np.ndarray:
    model.net.register_buffer("junk", torch.zeros(1))
    return good(model, fact)


def not_finite_on_whole_prompts(model: Model, fact: Fact) -> np.ndarray:
    return good(model, fact) * (np.nan if fact.prompt == "{}" else 1)


def crashes_on_whole_prompts(model: Model, fact: Fact) -> np.ndarray:
    if fact.prompt == "{}":
        raise ZeroDivisionError
    return good(model, fact)


def finds_the_first_layer(model: Model, fact: Fact) -> np.ndarray:
    return np.arange(model.n_layers, 0, -1)


class Remembers:
    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, model: Model, fact: Fact) -> np.ndarray:
        self.seen.add(fact.id)
        return good(model, fact) * len(self.seen)


@pytest.mark.parametrize(
    ("broken", "clause"),
    [
        (transposed, "1: the last axis"),
        (not_finite, "1: every number"),
        (random, "3: asked twice"),
        (torch_random, "2: torch's random state"),
        (numpy_random, "2: numpy's random state"),
        (replaces_a_forward, "2: no hook"),
        (adds_a_buffer, "2: no weight may change, but junk"),
        (not_finite_on_whole_prompts, "1: every number"),
        (leaves_a_hook, "2: no hook"),
        (changes_a_weight, "2: no weight may change"),
        (leaves_gradients, "2: modes and gradients"),
        (Remembers(), "3: the answer must not depend"),
        (heeds_dropout, "3: dropout"),
        (heeds_padding, "4: the padding side"),
        (crashes_on_whole_prompts, "5: .*ZeroDivisionError"),
        (finds_the_first_layer, "6: with every other mlp_out silent, layer 0"),
    ],
)
def test_broken_instruments_are_found_out(broken: Callable[[Model, Fact], np.ndarray], clause: str) -> None:
    model = model_of("gpt2")
    model.tokenizer.padding_side = "right"
    with pytest.raises(ContractError, match=clause):
        check_localizer(broken, model, FACTS, module="mlp")


def test_the_check_asks_for_two_facts_and_a_module_there_is() -> None:
    with pytest.raises(SettingError, match="got 1"):
        check_localizer(good, model_of("gpt2"), FACTS[:1])
    with pytest.raises(SettingError, match="'neuron'"):
        check_localizer(good, model_of("gpt2"), FACTS, module="neuron")


def test_a_reinitialised_model_has_the_same_shape_and_other_weights() -> None:
    model = model_of("llama", dtype=torch.float64)
    state = torch.random.get_rng_state()
    fresh, again, other = (reinitialised(model, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert fresh.fingerprint() == again.fingerprint() != other.fingerprint()
    assert fresh.fingerprint() != model.fingerprint()
    assert fresh.net.dtype == torch.float64
    assert not fresh.net.training
    assert "re-initialised with seed 1" in fresh.name
    assert np.isfinite(pal.trace(fresh, FACTS[0], **MARGIN).effect).all()  # type: ignore[arg-type]
