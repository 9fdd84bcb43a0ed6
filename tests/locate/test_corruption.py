"""What corruptions change, what they leave alone, and what they refuse; maps and the gate around them."""

import numpy as np
import pytest
import torch

import palimpsest as pal
from families import byte_tokenizer
from oracles.small import EIFFEL, model_of
from palimpsest.errors import FactError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate import Trace
from palimpsest.locate.corruption import Corruption, swapped
from palimpsest.locate.maps import SCORES
from palimpsest.model import Model

POOL = tuple(
    Fact(name, "The capital of {} is", answer, "Rome", relation="capital")
    for name, answer in [("Kenya", "Nairobi"), ("China", "Beijing"), ("Chile", "Santiago"), ("Italy", "nairobi")]
)


@pytest.fixture(scope="module")
def model() -> Model:
    return model_of("gpt2", dtype=torch.float64)


def test_a_swap_keeps_everything_but_the_subject(model: Model) -> None:
    fact = POOL[0]
    encoded = model.encode(fact.text)
    found = swapped(model, fact, encoded, POOL, 10, seed=1)
    assert sorted(found.subjects) == ["Chile", "China"]  # Italy is given the same answer here
    for name, ids in zip(found.subjects, found.ids, strict=True):
        assert model.tokenizer.decode(ids) == f"The capital of {name} is"
        assert [i for i in range(len(ids)) if ids[i] != encoded.ids[i]] == [
            i for i in found.positions if ids[i] != encoded.ids[i]
        ]
    assert swapped(model, fact, encoded, POOL, 1, seed=1).subjects == found.subjects[:1]
    assert swapped(model, fact, encoded, POOL, 10, seed=1) == found


def test_a_swap_takes_the_subjects_it_is_given(model: Model) -> None:
    found = pal.trace(model, POOL[0], corruption="swap", swap_with=["Italy"], samples=3)
    assert found.settings["swapped"] == ["Italy"]
    assert found.patched.shape[2] == 1


def test_without_a_fitting_subject_the_fact_is_refused_with_what_to_do(model: Model) -> None:
    with pytest.raises(FactError, match=r"None of the 0 other subjects of the relation .* swap_with"):
        pal.trace(model, EIFFEL, corruption="swap", spread_of=[EIFFEL])
    with pytest.raises(FactError, match="no token beside its subject"):
        pal.trace(model, Fact("Space Needle", "{}"), corruption="relation", noise_level=1.0)


def test_the_shuffled_subject_control_restores_another_subject(model: Model) -> None:
    settings = {"corruption": "swap", "swap_with": ["China"], "spread_of": POOL}
    own = pal.trace(model, POOL[0], **settings)  # type: ignore[arg-type]
    other = pal.trace(model, POOL[0], donor="shuffled-subject", **settings)  # type: ignore[arg-type]
    assert np.abs(own.effect).max() > 0
    np.testing.assert_allclose(other.effect, 0, atol=1e-12)  # the run of China gets the states of China


def test_no_noise_has_no_total_effect_and_ratios_are_withheld(model: Model) -> None:
    found = pal.trace(model, EIFFEL, samples=3, noise_level=0.0)
    assert found.total_effect == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(found.effect, 0, atol=1e-12)
    assert "is below 0.01" in found.withheld
    assert np.isnan(found.fraction).all()


def made(clean: float, corrupted: list[float], score: str = "probability") -> Trace:
    """A map of one token and layer with these probabilities."""
    samples = len(corrupted)
    log = np.log(np.array(corrupted))
    return Trace(
        EIFFEL,
        " Paris",
        " Rome",
        True,
        ("a",),
        (0, 1),
        (0,),
        score,
        np.log(np.array([clean, 0.1])),
        np.stack([log, np.full(samples, np.log(0.2))], 1),
        np.zeros((1, 1, samples, 2)),
        {"kind": "state"},
    )


def test_ratios_are_withheld_where_the_interval_of_the_total_effect_reaches_zero() -> None:
    assert made(0.5, [0.1, 0.11, 0.12]).withheld == ""
    assert made(0.5, [0.1, 0.11, 0.12]).fraction.shape == (1, 1)
    assert "reaches down to" in made(0.5, [0.02, 0.9, 0.1, 0.8]).withheld
    assert "is below" in made(0.1, [0.2, 0.21]).withheld
    assert made(0.5, [0.1]).withheld == ""


def test_scores_are_what_their_names_say() -> None:
    found = made(0.5, [0.1, 0.3])
    assert found.clean == pytest.approx(0.5)
    assert found.corrupted == pytest.approx(0.2)
    logs = found.scored("log-probability")
    assert logs.total_effect == pytest.approx(np.log(0.5) - (np.log(0.1) + np.log(0.3)) / 2)
    difference = found.scored("logit-difference")
    assert difference.clean == pytest.approx(np.log(0.5 / 0.1))
    assert difference.samples.tolist() == pytest.approx([np.log(0.1 / 0.2), np.log(0.3 / 0.2)])
    assert set(found.to_json()["also"]) == set(SCORES) - {"probability"}


def test_a_foil_must_differ_from_the_answer(model: Model) -> None:
    with pytest.raises(FactError, match="begins with the same token"):
        pal.trace(model, EIFFEL, foil="Paris", noise_level=1.0, samples=1)
    same = Fact(EIFFEL.subject, EIFFEL.prompt, "Paris", "Paris")
    assert pal.trace(model, same, noise_level=1.0, samples=1).foil == ""
    with pytest.raises(FactError, match="no foil that begins otherwise"):
        pal.trace(model, same, noise_level=1.0, samples=1, score="logit-difference")
    with pytest.raises(SettingError, match="needs a foil"):
        pal.trace(model, same, noise_level=1.0, samples=1).scored("logit-difference")


def test_the_gate_tells_known_from_unknown(model: Model) -> None:
    logits = model.net(input_ids=torch.tensor([model.tokenizer(EIFFEL.text).input_ids])).logits[0, -1]
    rome, paris = (model.tokenizer(f" {name}").input_ids[0] for name in ("Rome", "Paris"))
    better, worse = ("Rome", "Paris") if logits[rome] > logits[paris] else ("Paris", "Rome")
    right = Fact(EIFFEL.subject, EIFFEL.prompt, better, worse)
    wrong = Fact(EIFFEL.subject, EIFFEL.prompt, worse, better)
    assert not pal.trace(model, right, noise_level=1.0, samples=1).known
    assert pal.trace(model, right, noise_level=1.0, samples=1, gate="foil").known
    assert not pal.trace(model, wrong, noise_level=1.0, samples=1, gate="foil").known
    assert pal.trace(model, Fact(EIFFEL.subject, EIFFEL.prompt), noise_level=1.0, samples=1).known
    with pytest.raises(SettingError, match="'first' or 'foil'"):
        pal.trace(model, right, noise_level=1.0, samples=1, gate="second")


@pytest.mark.parametrize("bos", [False, True])
def test_one_token_and_many_token_subjects_anywhere(bos: bool) -> None:
    model = model_of("gpt2", dtype=torch.float64, tokenizer=byte_tokenizer(bos=bos))
    for subject in ("X", "Ab Cd Ef Gh Ij Kl"):
        for prompt in ("{}", "{} is", "In {}", "In {} is"):
            found = pal.trace(model, Fact(subject, prompt), samples=2, noise_level=1.0)
            assert found.effect.shape == (len(found.tokens), 3)
            assert found.restored[-1, -1] == pytest.approx(found.clean)
            assert np.isfinite(found.effect).all()
            lesioned = pal.lesion(model, Fact(subject, prompt), by="zero")
            assert np.isfinite(lesioned.effect).all()


def test_a_lesion_with_the_corrupted_state_of_all_is_the_total_effect(model: Model) -> None:
    found = pal.lesion(model, EIFFEL, by="noise", samples=3, noise_level=1.0)
    np.testing.assert_allclose(found.effect[-1, -1], found.total_effect, rtol=1e-9)
    np.testing.assert_allclose(found.direct_effect, found.total_effect - found.effect)
    assert np.isnan(pal.lesion(model, EIFFEL, by="zero").direct_effect).all()
    assert "nothing was corrupted" in pal.lesion(model, EIFFEL, by="zero").withheld


def test_corruptions_check_their_settings() -> None:
    for settings, sentence in (
        ({"kind": "noisy"}, "Did you mean 'noise'"),
        ({"samples": 0}, "got 0"),
        ({"noise_level": -1.0}, "0 or more"),
        ({"noise_level": float("nan")}, "0 or more"),
    ):
        with pytest.raises(SettingError, match=sentence):
            Corruption(**settings)  # type: ignore[arg-type]


def test_maps_become_data_frames_and_figures(model: Model) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    from palimpsest.locate.plot import plot_maps

    maps = [pal.trace(model, EIFFEL, kind=kind, samples=2, noise_level=1.0) for kind in ("state", "mlp", "attn")]
    frame = maps[0].to_pandas()
    assert len(frame) == maps[0].effect.size
    assert frame.loc[frame["role"] == "last", "effect"].tolist() == maps[0].effect[-1].tolist()
    figure = plot_maps(maps)
    assert [axes.get_title().split(":")[0] for axes in figure.axes[:3]] == [
        "state",
        "MLP output, window 10",
        "attention output, window 10",
    ]
    limits = {axes.images[0].get_clim() for axes in figure.axes[:3]}
    assert len(limits) == 1
    assert "indirect effect" in figure.axes[3].get_ylabel()
