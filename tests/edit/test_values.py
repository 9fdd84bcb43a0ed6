"""The value search: the textbook's steps, and facts found together as found alone."""

from typing import Any

import pytest
import torch

from oracles.small import CONTEXTS, EIFFEL, FACTS, LAYER, down_of, model_of, precision_of, smollm2
from oracles.textbook_rome import textbook_rome
from palimpsest.edit.search import Found, ValueSettings
from palimpsest.edit.values import find_values
from palimpsest.errors import EditError, FactError
from palimpsest.facts import Fact
from palimpsest.model import Model, Site

NORMS = (4.0, 3.0, 1.5)
QUICK = ValueSettings(steps=8)


def alone(model: Model, settings: ValueSettings, layer: int = LAYER) -> list[Found]:
    """Each fact in a search of its own."""
    pairs = zip(FACTS, NORMS, strict=True)
    return [find_values(model, Site("value", layer), [fact], CONTEXTS, [norm], settings)[0] for fact, norm in pairs]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_facts_found_together_are_those_found_alone(family: str, dtype: torch.dtype, tolerance: float) -> None:
    model = model_of(family, dtype=dtype)
    together = find_values(model, Site("value", LAYER), FACTS, CONTEXTS, NORMS)
    for one, each in zip(together, alone(model, ValueSettings()), strict=True):
        assert one.steps == each.steps == 20
        assert one.delta.dtype == dtype
        torch.testing.assert_close(one.delta, each.delta, rtol=0, atol=tolerance * float(each.delta.norm()))
        assert one.loss == pytest.approx(each.loss, rel=tolerance)
        assert one.nll == pytest.approx(each.nll, rel=tolerance)


@pytest.mark.parametrize("family", ["opt", "gemma2", "bloom", "falcon", "qwen2_moe", "gpt_neox_parallel"])
def test_together_is_alone_in_other_families(family: str) -> None:
    dtype, tolerance = precision_of(family)
    model = model_of(family, dtype=dtype)
    layer = (
        0 if family == "gemma2" else LAYER
    )  # above layer 1 its attention sees four tokens, and the subject is further
    together = find_values(model, Site("value", layer), FACTS, CONTEXTS, NORMS, QUICK)
    for one, each in zip(together, alone(model, QUICK, layer), strict=True):
        torch.testing.assert_close(one.delta, each.delta, rtol=0, atol=20 * tolerance * float(each.delta.norm()))


def test_facts_that_stop_at_different_steps_do_not_disturb_the_others() -> None:
    model = model_of("llama", dtype=torch.float64)
    after_seven = [found.loss for found in alone(model, ValueSettings(steps=7, decay=0.01))]
    settings = ValueSettings(decay=0.01, stop_below=sorted(after_seven)[1] + 1e-6)  # the middle fact stops there
    together, separate = (
        find_values(model, Site("value", LAYER), FACTS, CONTEXTS, NORMS, settings),
        alone(model, settings),
    )
    assert len({found.steps for found in together}) > 1
    for one, each in zip(together, separate, strict=True):
        assert one.steps == each.steps
        torch.testing.assert_close(one.delta, each.delta, rtol=0, atol=1e-10)
        assert each.loss < settings.stop_below or each.steps == 20


def test_the_order_of_facts_does_not_matter() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    forward = find_values(model, Site("value", LAYER), FACTS, CONTEXTS, NORMS, QUICK)
    backward = find_values(model, Site("value", LAYER), FACTS[::-1], CONTEXTS, NORMS[::-1], QUICK)[::-1]
    for one, other in zip(forward, backward, strict=True):
        torch.testing.assert_close(one.delta, other.delta, rtol=0, atol=1e-10)


@pytest.mark.parametrize("layer", [0, 1])  # at the last one delta cannot reach the answer, and Adam follows rounding
@pytest.mark.parametrize("preset", ["fixed", "rome-2022"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
def test_the_search_is_the_textbook_search_at_any_layer(family: str, preset: str, layer: int) -> None:
    model = model_of(family, dtype=torch.float64)
    settings: dict[str, Any] = {"steps": 8, "kl_factor": 0.5, "clamp": 0.5, "decay": 0.1}
    identity = torch.eye(48, dtype=torch.float64)
    down = down_of(model, family, layer)
    for fact in FACTS:
        book = textbook_rome(model.net, model.tokenizer, down, fact, CONTEXTS, identity, preset=preset, **settings)
        at = "subject" if preset == "rome-2022" else "last"
        (found,) = find_values(
            model,
            Site("value", layer),
            [fact],
            CONTEXTS,
            [float(book.value.norm())],
            ValueSettings(kl_at=at, **settings),
        )
        assert found.steps == book.steps
        assert found.loss == pytest.approx(book.loss, rel=1e-9)
        torch.testing.assert_close(found.delta, book.delta, rtol=0, atol=1e-8 * float(book.delta.norm()))


def test_the_clamp_holds_and_one_step_moves_nothing() -> None:
    model = model_of("gpt2")
    (clamped,) = find_values(model, Site("value", LAYER), [EIFFEL], CONTEXTS, [4.0], ValueSettings(clamp=0.01))
    assert float(clamped.delta.norm()) <= 0.04 * 1.00001
    (still,) = find_values(model, Site("value", LAYER), [EIFFEL], CONTEXTS, [4.0], ValueSettings(steps=1))
    assert torch.equal(still.delta, torch.zeros(32))
    assert still.steps == 1


def test_nothing_is_left_in_the_model() -> None:
    model = model_of("gpt2")
    before = model.fingerprint()
    find_values(model, Site("value", LAYER), FACTS, CONTEXTS, NORMS, QUICK)
    assert model.fingerprint() == before
    assert all(weight.grad is None for weight in model.net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.net.modules())


def test_a_fact_without_a_new_answer_is_refused() -> None:
    with pytest.raises(FactError, match="no target_new"):
        find_values(
            model_of("gpt2"), Site("value", LAYER), [Fact("Japan", "The capital of {} is", "Tokyo")], CONTEXTS, [1.0]
        )


def test_a_search_that_diverges_says_so() -> None:
    model = model_of("gpt2")
    with pytest.raises(EditError, match="diverged"):
        find_values(model, Site("value", LAYER), [EIFFEL], CONTEXTS, [0.0], QUICK)


def test_smollm2_learns_the_answer_in_a_few_steps() -> None:
    model = smollm2()
    (found,) = find_values(model, Site("value", 12), [EIFFEL], ("",), [10.0], ValueSettings(steps=8, decay=0.0))
    (before,) = find_values(model, Site("value", 12), [EIFFEL], ("",), [10.0], ValueSettings(steps=1))
    assert before.nll > 3
    assert found.nll < 0.5
