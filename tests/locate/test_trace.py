"""Causal tracing against the textbook version, and what must hold of any trace."""

from typing import Any

import numpy as np
import pytest
import torch

import palimpsest as pal
from families import FAMILIES, byte_tokenizer
from oracles.small import EIFFEL, FACTS, layers_of, model_of, precision_of, smollm2
from oracles.textbook_trace import find_token_range, published_repatch, trace_states
from palimpsest.errors import InputError, OutputError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate import Trace
from palimpsest.locate.tracing.corruption import embedding_spread, noise_draw
from palimpsest.model import Model

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
PLACES = {
    "first": Fact("Eiffel Tower", "{} is located in the city of"),
    "middle": Fact("Japan", "The capital of {} is"),
    "many tokens": Fact("Antoine de Saint-Exupéry and Danielle Darrieux", "The mother tongue of {} is"),
    "last": Fact("Zürich", "The largest city of Switzerland is {}"),
    "all": Fact("Space Needle", "{}"),
}


def textbook(model: Model, family: str, found: Trace, noise: np.ndarray, **settings: Any) -> tuple[Any, ...]:
    """What the oracle says to the same fact, noise and answer."""
    ids = model.tokenizer(found.fact.text).input_ids
    subject = find_token_range(model.tokenizer, ids, found.fact.subject)
    assert subject == found.subject
    token = torch.tensor(ids)[None]
    logits = model.net(input_ids=token).logits[0, -1]
    if found.fact.target_true is None or found.settings["preset"]:
        answer = int(logits.argmax())
    else:
        answer = model.tokenizer(" " + found.fact.target_true, add_special_tokens=False).input_ids[0]
    return trace_states(model.net, layers_of(model, family), ids, subject, noise, answer, **settings)


def own_noise(found: Trace) -> np.ndarray:
    """The noise of a trace without preset."""
    samples, (first, end) = len(found.samples), found.subject
    draw = noise_draw(samples, end - first, 32, seed=int(found.settings["seed"]), fact=found.fact)  # type: ignore[arg-type]
    return float(found.settings["noise_level"]) * draw.numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_trace_is_the_textbook_trace(family: str, place: str, dtype: torch.dtype) -> None:
    model = model_of(family, dtype=dtype, tokenizer=byte_tokenizer(bos=family == "llama"))
    found = pal.trace(model, PLACES[place], samples=3, noise_level=1.0)
    clean, corrupted, restored = textbook(model, family, found, own_noise(found))
    assert clean > 0.01
    assert np.abs(found.effect).max() > 1e-3 * clean
    assert found.clean == pytest.approx(clean, abs=TOLERANCE[dtype])
    np.testing.assert_allclose(found.samples, corrupted, rtol=0, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(found.restored, restored, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("family", ["opt", "gemma2", "falcon", "bloom", "qwen2_moe", "gptj"])
def test_trace_is_the_textbook_trace_in_other_families(family: str) -> None:
    dtype, tolerance = precision_of(family)
    model = model_of(family, dtype=dtype)
    found = pal.trace(model, PLACES["middle"], samples=2, noise_level=1.0)
    assert np.abs(found.effect).max() > 100 * tolerance
    _, corrupted, restored = textbook(model, family, found, own_noise(found))
    np.testing.assert_allclose(found.samples, corrupted, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.restored, restored, rtol=0, atol=tolerance)


def test_smollm2_is_traced_as_in_the_textbook_at_some_cells() -> None:
    model = smollm2()
    fact = Fact("France", "The capital of {} is", "Paris")
    found = pal.trace(model, fact, samples=2, noise_level=0.3)
    cells = [(3, 0), (3, 9), (3, 15), (4, 20), (4, 29)]
    ids = model.tokenizer(fact.text).input_ids
    noise = 0.3 * noise_draw(2, found.subject[1] - found.subject[0], 576, seed=1, fact=fact).numpy()
    paris = model.tokenizer(" Paris").input_ids[0]
    layers = list(model.net.get_submodule("model.layers"))
    clean, corrupted, restored = trace_states(model.net, layers, ids, found.subject, noise, paris, cells)
    assert clean > 0.3
    assert found.total_effect > 0.1
    assert found.clean == pytest.approx(clean, abs=1e-4)
    np.testing.assert_allclose(found.samples, corrupted, rtol=0, atol=1e-4)
    for t, l in cells:
        np.testing.assert_allclose(found.restored[t, l], restored[t, l], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def gpt2() -> Model:
    return model_of("gpt2")


@pytest.fixture(scope="module")
def found(gpt2: Model) -> Trace:
    return pal.trace(gpt2, PLACES["middle"], samples=4, noise_level=1.0)


def test_tokens_before_the_subject_have_no_effect(found: Trace) -> None:
    assert found.subject[0] > 0
    assert (found.effect[: found.subject[0]] == 0).all()
    assert (found.effect[found.subject[0] :] != 0).any()


def test_the_last_state_of_all_is_the_clean_answer(found: Trace) -> None:
    np.testing.assert_allclose(found.restored[-1, -1], found.clean, rtol=1e-5)
    assert found.effect[-1, -1] == pytest.approx(found.total_effect, rel=1e-4, abs=1e-7)


def test_states_after_which_nothing_reaches_the_answer_have_no_effect(found: Trace) -> None:
    np.testing.assert_allclose(found.effect[:-1, -1], 0, atol=1e-6)  # batches of unequal size round differently


def test_total_effect_and_effect_are_differences_of_means(found: Trace) -> None:
    assert found.corrupted == pytest.approx(found.samples.mean())
    assert found.total_effect == pytest.approx(found.clean - found.samples.mean())
    np.testing.assert_allclose(found.effect, found.restored.mean(axis=2) - found.samples.mean(), atol=1e-12)
    t, l = found.peak
    assert found.effect[t, l] == found.effect.max()


def test_a_trace_depends_on_its_seed_and_on_nothing_else(gpt2: Model, found: Trace) -> None:
    pal.trace(gpt2, EIFFEL, samples=1, noise_level=1.0)
    torch.manual_seed(5)
    again = pal.trace(gpt2, PLACES["middle"], samples=4, noise_level=1.0)
    np.testing.assert_array_equal(again.restored, found.restored)
    other = pal.trace(gpt2, PLACES["middle"], samples=4, noise_level=1.0, seed=2)
    assert not np.array_equal(other.samples, found.samples)
    assert other.clean == found.clean


def test_each_fact_has_noise_of_its_own_but_not_in_the_published_preset() -> None:
    one, other = (noise_draw(2, 3, 8, seed=1, fact=fact) for fact in FACTS[:2])
    assert not torch.equal(one, other)
    assert torch.equal(one, noise_draw(2, 3, 8, seed=1, fact=FACTS[0]))
    published = noise_draw(2, 3, 8, seed=1, fact=None)
    assert not torch.equal(one, published)
    both = torch.from_numpy(np.random.RandomState(1).randn(4, 3, 8))
    assert torch.equal(torch.cat([published, noise_draw(2, 3, 8, seed=1, fact=None, draw=1)]), both)


def test_the_published_preset_draws_and_scores_as_published(gpt2: Model) -> None:
    fact = Fact("Eiffel Tower", "The {} is located in the city of", "Paris")
    found = pal.trace(gpt2, fact, samples=3, noise_level=1.0, preset="rome-2022")
    first, end = found.subject
    noise = np.random.RandomState(1).randn(3, end - first, 32)
    np.testing.assert_array_equal(noise_draw(3, end - first, 32, seed=1, fact=None).numpy(), noise)
    clean, corrupted, restored = textbook(gpt2, "gpt2", found, noise)
    ids = torch.tensor([gpt2.tokenizer(fact.text).input_ids])
    assert clean == pytest.approx(float(gpt2.net(input_ids=ids).logits[0, -1].softmax(-1).max()))
    assert found.clean == pytest.approx(clean, abs=1e-6)
    np.testing.assert_allclose(found.samples, corrupted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.restored, restored, rtol=0, atol=1e-5)


@pytest.mark.parametrize("severed", ["mlp", "attn"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
def test_the_published_severed_trace_draws_twice_from_one_stream(family: str, severed: str) -> None:
    model = model_of(family, dtype=torch.float64)
    found = pal.trace(
        model, PLACES["middle"], severed=severed, samples=3, noise_level=0.7, preset="rome-2022", spread_of=FACTS
    )
    place, layers = FAMILIES[family], layers_of(model, family)
    mlp = place.mlp if isinstance(place.mlp, str) else place.mlp[0]
    modules = [layer.get_submodule(mlp if severed == "mlp" else place.attention) for layer in layers]
    ids = model.tokenizer(found.fact.text).input_ids
    token = int(model.net(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
    for t in range(found.subject[0], len(ids)):
        for l in range(3):
            score = published_repatch(model.net, layers, modules, ids, found.subject, 0.7, 3, (t, l), token)
            assert found.restored[t, l].mean() == pytest.approx(score, abs=1e-12)
    plain = pal.trace(model, PLACES["middle"], samples=3, noise_level=0.7, preset="rome-2022", spread_of=FACTS)
    np.testing.assert_allclose(found.samples, plain.samples, atol=1e-12)  # m0 is of the first draw


def test_the_published_noise_level_counts_subjects_that_recur(gpt2: Model) -> None:
    twice = [FACTS[0], FACTS[1], Fact(FACTS[1].subject, "{} is"), FACTS[2]]
    entries = [
        gpt2.net.get_input_embeddings().weight[i].double() for f in twice for i in gpt2.tokenizer(f.subject).input_ids
    ]
    found = pal.trace(gpt2, EIFFEL, samples=1, spread_of=twice, preset="rome-2022")
    assert found.settings["noise_level"] == pytest.approx(3 * float(torch.cat(entries).std()), rel=1e-6)


def test_intervals_hold_the_effect_and_shrink_with_the_level(found: Trace) -> None:
    low, high = found.interval()
    assert (low <= found.effect).all()
    assert (found.effect <= high).all()
    narrow_low, narrow_high = found.interval(0.5)
    assert (narrow_high - narrow_low <= high - low).all()
    assert (high - low)[: found.subject[0]].max() == 0
    assert (high - low)[found.subject[0], 0] > 0


def test_one_sample_has_no_interval(gpt2: Model) -> None:
    low, high = pal.trace(gpt2, PLACES["middle"], samples=1, noise_level=1.0).interval()
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_the_interval_is_the_paired_t_interval(found: Trace) -> None:
    t, l = found.subject[0], 1
    paired = found.restored[t, l] - found.samples
    half = 3.182446305284263 * paired.std(ddof=1) / 2  # the 0.975 quantile of t with 3 degrees of freedom, sqrt(4)
    assert found.interval()[0][t, l] == pytest.approx(paired.mean() - half)
    assert found.interval()[1][t, l] == pytest.approx(paired.mean() + half)


def test_the_padding_side_of_the_tokenizer_changes_nothing(gpt2: Model, found: Trace) -> None:
    for settings in ({"padding_side": "left"}, {"pad": False}):
        other = pal.load(gpt2.net, tokenizer=byte_tokenizer(**settings), check=False)  # type: ignore[arg-type]
        again = pal.trace(other, PLACES["middle"], samples=4, noise_level=1.0)
        np.testing.assert_array_equal(again.restored, found.restored)


def test_the_model_is_left_as_it_was_and_dropout_is_off_meanwhile() -> None:
    model = model_of("gpt2")
    quiet = pal.trace(model, EIFFEL, samples=2, noise_level=1.0)
    model.net.train()
    before = model.fingerprint()
    trained = pal.trace(model, EIFFEL, samples=2, noise_level=1.0)
    np.testing.assert_array_equal(trained.restored, quiet.restored)
    assert model.net.training
    assert model.fingerprint() == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.net.modules())


def test_without_a_level_the_noise_is_three_times_the_spread(gpt2: Model) -> None:
    entries = [
        gpt2.net.get_input_embeddings().weight[i].double() for f in FACTS for i in gpt2.tokenizer(f.subject).input_ids
    ]
    spread = float(torch.cat(entries).std())
    assert embedding_spread(gpt2, FACTS) == pytest.approx(spread, rel=1e-6)
    assert embedding_spread(gpt2, [*FACTS, *reversed(FACTS)]) == pytest.approx(spread, rel=1e-6)
    found = pal.trace(gpt2, EIFFEL, samples=1, spread_of=FACTS)
    assert found.settings["noise_level"] == pytest.approx(3 * spread, rel=1e-6)


def test_the_answer_that_is_scored_can_be_chosen(gpt2: Model) -> None:
    ids = torch.tensor([gpt2.tokenizer(EIFFEL.text).input_ids])
    p = gpt2.net(input_ids=ids).logits[0, -1].softmax(-1)
    rome = gpt2.tokenizer(" Rome").input_ids[0]
    found = pal.trace(gpt2, EIFFEL, samples=1, noise_level=1.0, answer="Rome")
    assert found.clean == pytest.approx(float(p[rome]), rel=1e-4)
    assert found.answer == gpt2.tokenizer.decode([rome])
    unknown = Fact(EIFFEL.subject, EIFFEL.prompt)
    assert pal.trace(gpt2, unknown, samples=1, noise_level=1.0).clean == pytest.approx(float(p.max()), rel=1e-4)


def test_progress_ends_at_its_total(gpt2: Model) -> None:
    seen: list[tuple[int, int, str]] = []
    pal.trace(gpt2, EIFFEL, samples=1, noise_level=1.0, progress=lambda *step: seen.append(step))
    assert seen[-1][0] == seen[-1][1]
    assert [step[0] for step in seen] == sorted(step[0] for step in seen)


def test_a_trace_is_written_whole(found: Trace, tmp_path: Any) -> None:
    import json

    found.save(str(tmp_path / "trace.json"))
    stored = json.loads((tmp_path / "trace.json").read_text("utf-8"))
    assert stored["tokens"] == list(found.tokens)
    assert stored["effect"] == found.effect.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]
    with pytest.raises(OutputError):
        found.save(str(tmp_path / "trace.json" / "below"))


def test_a_trace_plots(found: Trace) -> None:
    pytest.importorskip("matplotlib")
    figure = found.plot()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]  # type: ignore[attr-defined]
    assert [label.endswith("*") for label in labels] == [
        found.subject[0] <= i < found.subject[1] for i in range(len(labels))
    ]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kind": "sate"}, "Did you mean 'state'"),
        ({"samples": 0}, "at least one sample, got 0"),
        ({"preset": "rome"}, "rome-2022"),
        ({"noise_level": -1.0}, "noise_level"),
        ({"noise_level": float("nan")}, "noise_level"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence(gpt2: Model, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        pal.trace(gpt2, EIFFEL, **({"noise_level": 1.0} | settings))


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    model = model_of("gpt2", n_positions=8)
    with pytest.raises(InputError, match="at most 8"):
        pal.trace(model, EIFFEL, samples=1, noise_level=1.0)
