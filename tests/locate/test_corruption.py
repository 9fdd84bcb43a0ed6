"""What corruptions change, what they leave alone, and what they refuse; maps and the gate around them."""

from typing import Any

import numpy as np
import pytest
import torch

import palimpsest as pal
from families import byte_tokenizer
from oracles.small import EIFFEL, model_of
from palimpsest.errors import FactError, InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate import Trace
from palimpsest.locate.tracing.corruption import Corruption, swapped
from palimpsest.locate.tracing.maps import SCORES
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


def test_the_shuffled_subject_control_restores_a_third_subject(model: Model) -> None:
    settings: dict[str, Any] = {"corruption": "swap", "swap_with": ["China", "Chile"], "samples": 2}
    own = pal.trace(model, POOL[0], **settings)
    found = pal.trace(model, POOL[0], donor="shuffled-subject", **settings)
    assert found.settings["swapped"] == ["China", "Chile"]
    assert found.settings["donors"] == ["Chile", "China"]
    assert (np.abs(found.effects).max(axis=(0, 1)) > 1e-3 * np.abs(own.effects).max()).all()
    # restoring all of the last state of another subject's run gives what that run says
    np.testing.assert_allclose(found.restored[-1, -1], found.samples[::-1], rtol=1e-9)
    with pytest.raises(FactError, match="no third subject"):
        pal.trace(model, POOL[0], donor="shuffled-subject", corruption="swap", swap_with=["China"])


def test_a_shuffled_donor_differs_where_its_subject_does_also_before_the_corruption(model: Model) -> None:
    fact = Fact("Kenya", "{} has the capital", "Nairobi", relation="capital")
    settings: dict[str, Any] = {"corruption": "relation", "noise_level": 1.0, "samples": 2, "swap_with": ["China"]}
    found = pal.trace(model, fact, donor="shuffled-subject", **settings)
    end = found.subject[1]
    assert np.abs(found.effect[:end]).max() > 0
    clean = pal.trace(model, fact, **settings)
    assert np.abs(clean.effect[:end]).max() == 0


def test_subjects_to_swap_in_are_taken_once_and_never_the_own_one(model: Model) -> None:
    found = swapped(
        model, POOL[0], model.encode(POOL[0].text), POOL, 9, seed=1, swap_with=["Kenya", "China", "China", "X"]
    )
    assert found.subjects == ("China",)


def test_a_resampled_lesion_depends_on_its_fact_alone(model: Model) -> None:
    from palimpsest.locate.tracing.lesion import Lesioner

    pool = (*POOL, EIFFEL, Fact("Danielle Darrieux", "The mother tongue of {} is", "French", relation="language"))
    made = Lesioner.of(model, pool, by="resample", samples=3)
    long = Fact("Kenya", "It is well known to all of us that the capital of {} is", "Nairobi", relation="capital")
    lonely = Lesioner.of(model, POOL, by="resample")
    together = made.each(model, [POOL[0], long])
    for fact, one in zip([POOL[0], long], together, strict=True):
        (alone,) = made.each(model, [fact])
        np.testing.assert_allclose(one.log_p_patched, alone.log_p_patched, rtol=0, atol=1e-10)  # type: ignore[union-attr]
    (reason,) = lonely.each(model, [POOL[0]])
    assert "no prompt of another relation" in str(reason)


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
    with pytest.raises(FactError, match="the token that is scored as the answer"):
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
    published = {"preset": "rome-2022", "noise_level": 1.0, "samples": 1}
    said = model.tokenizer.decode([int(logits.argmax())])
    assert pal.trace(model, Fact(EIFFEL.subject, EIFFEL.prompt, said), **published).known  # type: ignore[arg-type]
    assert not pal.trace(model, Fact(EIFFEL.subject, EIFFEL.prompt, f"{said}x"), **published).known  # type: ignore[arg-type]
    assert pal.trace(model, right, gate="foil", **published).known  # type: ignore[arg-type]
    assert not pal.trace(model, wrong, gate="foil", **published).known  # type: ignore[arg-type]
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
    from palimpsest.locate.tracing.plot import plot_maps

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
    assert figure.axes[3].get_ylabel() == "indirect effect (probability)"
    both = plot_maps([maps[0], pal.lesion(model, EIFFEL, by="zero")])
    assert both.axes[2].get_ylabel() == "indirect effect or lesion effect (probability)"
    assert "state, zero" in both.axes[1].get_title()
    with pytest.raises(InputError, match="one score"):
        plot_maps([maps[0], maps[1].scored("log-probability")])
