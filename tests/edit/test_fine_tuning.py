"""FT and FT-L against the textbook version, the bound, and the published defect with answers of several tokens."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import palimpsest as pal
from oracles.small import EIFFEL, FACTS, JAPAN, LAYER, model_of, smollm2
from oracles.textbook_fine_tuning import fact_loss, textbook_fine_tuning
from palimpsest.edit import Dense, Edit, check_editor
from palimpsest.edit.defaults import RULE
from palimpsest.edit.methods.fine_tuning import PRESETS, FineTuning
from palimpsest.edit.training import TrainingSettings, in_place_of, train
from palimpsest.errors import EditError, FactError, SettingError
from palimpsest.locate.answers import answer_nll
from palimpsest.model.unchanged import hooks_of, modes_of, same_weights, weights_of

PUBLISHED = ("rome-2022", "rome-2022-l")


def delta_of(edit: Edit, path: str) -> Tensor:
    (payload,) = [payload for payload in edit.payloads if payload.path == path]
    assert isinstance(payload, Dense)
    return payload.delta


def assert_same(edit: Edit, book: dict[str, Tensor], tolerance: float) -> None:
    """The payloads of `edit` are the changes of the textbook."""
    assert {payload.path for payload in edit.payloads} == set(book)
    for path, expected in book.items():
        found = delta_of(edit, path)
        assert found.dtype == expected.dtype
        assert float((found - expected).norm()) <= tolerance * float(expected.norm()), path


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
def test_it_is_the_textbook(family: str, preset: str, dtype: torch.dtype, tolerance: float) -> None:
    model = model_of(family, dtype=dtype)
    epsilon = {"ft-l": 1e-3, "rome-2022-l": 5e-4}.get(preset)
    given = {"epsilon": epsilon} if preset == "ft-l" else {}  # six steps would not reach the bound chosen for smollm2
    edit = FineTuning(model, preset=preset, steps=6, layers=(LAYER,), **given).edit(FACTS)
    down = model.anatomy.down(LAYER).path
    bounds = {f"{down}.weight": epsilon}
    if preset in PUBLISHED and family != "llama":  # whose maps have no biases
        bounds[f"{down}.bias"] = epsilon
    book, passes = textbook_fine_tuning(
        model.net, model.tokenizer, bounds, FACTS, published_loss=preset in PUBLISHED, steps=6
    )
    assert_same(edit, book, tolerance)
    assert edit.notes["losses"] == pytest.approx(passes, rel=tolerance)
    assert float(delta_of(edit, f"{down}.weight").norm()) > 0.01


def test_batches_layers_and_weight_decay_are_the_textbooks_too() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    settings = {"steps": 3, "batch": 2, "weight_decay": 0.1, "layers": (2, 0), "shuffle": False, "learning_rate": 2e-3}
    edit = FineTuning(model, **settings).edit(FACTS)
    bounds = {f"{model.anatomy.down(layer).path}.weight": None for layer in (0, 2)}
    book, passes = textbook_fine_tuning(
        model.net, model.tokenizer, bounds, FACTS, steps=3, batch=2, weight_decay=0.1, lr=2e-3
    )
    assert_same(edit, book, 1e-9)
    assert edit.notes["losses"] == pytest.approx(passes, rel=1e-9)
    assert edit.settings["layers"] == [0, 2]


def test_it_stops_where_the_textbook_stops() -> None:
    model = model_of("llama", dtype=torch.float64)
    settings = {"steps": 40, "learning_rate": 5e-3, "layers": (LAYER,), "stop_below": 2.0}
    edit = FineTuning(model, **settings).edit([EIFFEL])
    path = f"{model.anatomy.down(LAYER).path}.weight"
    book, passes = textbook_fine_tuning(
        model.net, model.tokenizer, {path: None}, [EIFFEL], steps=40, lr=5e-3, stop_below=2.0
    )
    assert 1 < len(passes) < 40
    assert edit.notes["losses"] == pytest.approx(passes, rel=1e-8)
    assert edit.notes["losses"][-1] < 2 <= edit.notes["losses"][-2]
    assert edit.notes["facts"][0]["steps"] == len(passes)
    assert_same(edit, book, 1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ft_l_stays_within_its_bound(dtype: torch.dtype) -> None:
    model = model_of("gpt2", dtype=dtype)
    edit = FineTuning(model, preset="ft-l", epsilon=1.5e-3, steps=5, layers=(0, 1)).edit(FACTS)
    for payload in edit.payloads:
        assert float(payload.delta.abs().max()) == pytest.approx(1.5e-3)
        assert float(payload.delta.abs().max()) <= torch.tensor(1.5e-3)
    free = FineTuning(model, steps=5, layers=(0, 1)).edit(FACTS)
    assert all(float(payload.delta.abs().max()) > 1.6e-3 for payload in free.payloads)


def test_the_published_loss_cannot_write_an_answer_of_several_tokens_and_the_fixed_one_can() -> None:
    """Asked of one place, the tokens of JAPAN's answer compete: no distribution has a loss below the entropy of their shares."""
    model = model_of("llama", dtype=torch.float64)
    ids, begin = model.encode_answer(JAPAN.text, JAPAN.target_new)
    shares = torch.tensor([ids[begin:].count(token) for token in set(ids[begin:])]) / (len(ids) - begin)
    least = float(-(shares * shares.log()).sum())
    assert least > 1
    reached = {}
    for target in ("answer", "last_prompt"):
        editor = FineTuning(model, layers=(LAYER,), steps=50, learning_rate=1.5e-2, target=target)
        edit = editor.edit([JAPAN])
        with edit.applied(model):
            (reached[target],) = answer_nll(model, [(JAPAN.text, JAPAN.target_new)])
        if target == "last_prompt":
            assert min(edit.notes["losses"]) >= least
            assert edit.notes["losses"][-1] < edit.notes["losses"][0] / 2  # it does what it asks for: not the answer
    assert reached["answer"] < 0.1
    assert reached["last_prompt"] > 1


def test_for_an_answer_of_one_token_the_two_losses_are_one() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    fact = replace(EIFFEL, target_new="is")
    ids, begin = model.encode_answer(fact.text, "is")
    assert len(ids) - begin == 1
    one, other = (
        FineTuning(model, layers=(LAYER,), steps=4, target=target).edit([fact]).payloads[0].delta
        for target in ("answer", "last_prompt")
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_the_loss_in_the_notes_is_that_of_the_edited_model() -> None:
    model = model_of("gpt2")
    edit = FineTuning(model, layers=(LAYER,), steps=8, batch=2).edit(FACTS)
    with edit.applied(model):
        nll = answer_nll(model, [(fact.text, str(fact.target_new)) for fact in FACTS])
        (book,) = [float(fact_loss(model.net, model.tokenizer, EIFFEL, False))]
    assert [note["nll"] for note in edit.notes["facts"]] == pytest.approx(nll, abs=1e-4)
    assert nll[0] == pytest.approx(book, abs=1e-4)
    assert [note["fact"] for note in edit.notes["facts"]] == [fact.id for fact in FACTS]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("preset", ["fixed", "ft-l", "rome-2022-l"])
def test_it_keeps_the_contract(family: str, preset: str) -> None:
    def make(model: pal.Model, facts: Sequence[pal.Fact]) -> Edit:
        return pal.edit(model, facts, method="ft", preset=preset, layers=LAYER, steps=3)

    edit = check_editor(make, model_of(family), FACTS[:2])
    assert edit.settings["preset"] == preset
    assert edit.settings["training"]["steps"] == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_trained_in_float32(dtype: torch.dtype) -> None:
    model = model_of("llama", dtype=dtype)
    edit = FineTuning(model, layers=(LAYER,), steps=25, learning_rate=5e-3).edit([EIFFEL])
    (payload,) = edit.payloads
    assert payload.delta.dtype == torch.float32
    assert bool(torch.isfinite(payload.delta).all())
    before = answer_nll(model, [(EIFFEL.text, "Rome")])[0]
    with edit.applied(model):
        assert answer_nll(model, [(EIFFEL.text, "Rome")])[0] < before / 2


def test_nothing_is_left_behind_also_after_an_error_and_under_no_grad() -> None:
    model = model_of("gpt2")
    model.net.requires_grad_(True)
    model.net.train()
    weights, hooks, modes = weights_of(model), hooks_of(model), modes_of(model)
    order = [name for name, _ in model.net.named_parameters()]
    with torch.no_grad():
        quiet = FineTuning(model, layers=(LAYER,), steps=3).edit(FACTS)
    loud = FineTuning(model, layers=(LAYER,), steps=3).edit(FACTS)
    assert torch.equal(quiet.payloads[0].delta, loud.payloads[0].delta)

    def stop(done: int, total: int, label: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FineTuning(model, layers=(LAYER,), steps=3, progress=stop).edit(FACTS)
    with pytest.raises(RuntimeError), in_place_of(model, {f"{model.anatomy.down(0).path}.weight": torch.zeros(48, 32)}):
        raise RuntimeError
    assert not same_weights(model, weights)
    assert (hooks_of(model), modes_of(model)) == (hooks, modes)
    assert [name for name, _ in model.net.named_parameters()] == order
    assert all(isinstance(weight, torch.nn.Parameter) for weight in model.net.parameters())


def test_a_loss_that_is_not_finite_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    with torch.no_grad():
        model.net.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(EditError, match=r"diverged: the loss is nan; lower the learning rate"):
        FineTuning(model, layers=(LAYER,)).edit([EIFFEL])
    assert model.net.get_submodule(model.anatomy.down(LAYER).path).weight is model.parameter(
        f"{model.anatomy.down(LAYER).path}.weight"
    )


def test_the_order_of_batches_is_drawn_by_the_seed() -> None:
    model = model_of("gpt2")
    first, again, other = (
        FineTuning(model, layers=(LAYER,), steps=3, batch=1, seed=seed).edit(FACTS).payloads[0].delta
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "rome-2023"}, r"no preset 'rome-2023'. Did you mean 'rome-2022'"),
        ({"lr": 1e-3}, r"no setting 'lr'"),
        ({"text": "words"}, r"no setting 'text'"),
        ({"steps": 0}, r"steps must be 1 or more, got 0"),
        ({"epsilon": 0.0}, r"epsilon must be a number above 0, or None for no bound, got 0.0"),
        ({"epsilon": float("nan")}, r"epsilon must be a number above 0"),
        ({"learning_rate": -1.0}, r"learning_rate must be a number above 0, got -1.0"),
        ({"target": "first"}, r"target is one of answer and last_prompt, got 'first'"),
        ({"layers": ()}, r"at least one layer"),
        ({"layers": (1, 1)}, r"each named once"),
        ({"layers": (7,)}, r"no layer 7"),
        ({"weight_decay": -0.1}, r"weight_decay must be 0 or more"),
        ({"batch": 0}, r"batch must be 1 or more"),
    ],
)
def test_mistakes_in_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        FineTuning(model_of("gpt2"), **settings)


def test_mistakes_in_facts() -> None:
    editor = FineTuning(model_of("gpt2"), layers=(LAYER,), steps=1)
    with pytest.raises(EditError, match="no fact"):
        editor.edit([])
    with pytest.raises(FactError, match="no target_new"):
        editor.edit([replace(EIFFEL, target_new=None)])
    with pytest.raises(EditError, match="contradict"):
        editor.edit([EIFFEL, replace(EIFFEL, target_new="Oslo", id="other")])


def test_the_card_says_where_the_layers_come_from() -> None:
    model = model_of("gpt2")
    assert FineTuning(model).card["layers_from"] == RULE
    assert FineTuning(model, layers=(1,)).card["layers_from"] == "given"
    assert pal.edit(model, EIFFEL, method="ft", steps=1).settings["layers_from"] == RULE


def test_layers_below_the_trained_ones_run_once() -> None:
    """Counted by a hook: the first layer once a batch, the last in every step and once for the loss at the end."""
    model = model_of("gpt2")
    ran = {0: 0, 2: 0}
    handles = [
        model.anatomy.layers[layer].block.module.mlp.register_forward_hook(
            lambda *_, layer=layer: ran.__setitem__(layer, ran[layer] + 1)
        )
        for layer in ran
    ]
    path = f"{model.anatomy.down(1).path}.weight"
    train(model, FACTS, {path: None}, 1, TrainingSettings(steps=7, stop_below=0.0, batch=2))
    for handle in handles:
        handle.remove()
    assert ran == {0: 2, 2: 16}


@pytest.mark.slow
def test_smollm2_is_told_that_the_tower_is_in_rome() -> None:
    model = smollm2()
    before = model.fingerprint()
    edit = pal.edit(model, EIFFEL, method="ft", preset="ft-l", steps=15)
    assert float(edit.payloads[0].delta.abs().max()) == pytest.approx(4e-3)
    with edit.applied(model):
        new, old = answer_nll(model, [(EIFFEL.text, "Rome"), (EIFFEL.text, "Paris")])
    assert new < old
    assert model.fingerprint() == before
