"""The logit lens against the textbook version, and what must hold of any lens and any profile."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from oracles.small import EIFFEL, FACTS, JAPAN, layers_of, model_of, precision_of, smollm2
from oracles.textbook_reading import NORMS, lens
from palimpsest.errors import InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate import known as locate_known
from palimpsest.locate.known import Knowledge
from palimpsest.locate.reading import lens as lens_file
from palimpsest.locate.reading import profile as reading
from palimpsest.locate.reading.lens import lens_profile, logit_lens
from palimpsest.locate.reading.profile import Profile
from palimpsest.model import Model

CITIES = (
    EIFFEL,
    Fact("Space Needle", "The {} is located in the city of", "Seattle", id="needle", relation="city"),
    Fact("Kyoto", "{} is located in the city of", "Boston", id="kyoto", relation="city"),
)


@pytest.fixture(scope="module")
def gpt2() -> Model:
    return model_of("gpt2")


@pytest.fixture(scope="module")
def profile(gpt2: Model) -> Profile:
    return lens_profile(gpt2, [*CITIES, JAPAN])


@pytest.mark.parametrize("family", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_lens_is_the_textbook_lens(family: str, dtype: torch.dtype) -> None:
    model = model_of(family, dtype=dtype)
    found = logit_lens(model, EIFFEL)
    ids = model.tokenizer(EIFFEL.text).input_ids
    log_p = lens(model.net, layers_of(model, family), model.net.get_submodule(NORMS[family]), ids)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    for answer, own, rank in (("Paris", found.log_p, found.rank), ("Rome", found.foil_log_p, found.foil_rank)):
        token = model.tokenizer(" " + answer).input_ids[0]
        np.testing.assert_allclose(own, log_p[..., token], rtol=0, atol=tolerance)
        np.testing.assert_array_equal(rank, 1 + (log_p > log_p[..., token, None]).sum(-1).numpy())
    best = log_p.topk(5, dim=-1)
    np.testing.assert_array_equal(found.top, best.indices)
    np.testing.assert_allclose(found.top_p, best.values.exp(), rtol=0, atol=tolerance)


def test_smollm2_is_read_as_in_the_textbook() -> None:
    model = smollm2()
    fact = Fact("France", "The capital of {} is", "Paris")
    found = logit_lens(model, fact)
    ids, paris = model.tokenizer(fact.text).input_ids, model.tokenizer(" Paris").input_ids[0]
    log_p = lens(model.net, list(model.net.model.layers), model.net.model.norm, ids)  # type: ignore[union-attr]
    np.testing.assert_allclose(found.log_p, log_p[..., paris], rtol=0, atol=1e-4)
    assert found.rank[-1, -1] == 1
    assert found.rank[-1, 0] > 100
    assert found.top_text[-1][-1][0] == " Paris"


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "cohere", "granite", "opt_post_norm", "bloom", "falcon"])
def test_the_last_layer_is_the_output_of_the_model(family: str) -> None:
    dtype, tolerance = precision_of(family)
    model = model_of(family, dtype=dtype)
    found = logit_lens(model, EIFFEL, answer="French")
    ids = model.tokenizer(EIFFEL.text).input_ids
    log_p = model.net(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    token = model.tokenizer(" French").input_ids[0]
    np.testing.assert_allclose(found.log_p[:, -1], log_p[:, token].detach(), rtol=0, atol=10 * tolerance)
    np.testing.assert_array_equal(found.top[:, -1, 0], log_p.argmax(-1))
    assert np.abs(found.log_p[:, 0] - found.log_p[:, -1]).max() > 0.01


def test_reading_few_states_at_a_time_changes_nothing(gpt2: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = logit_lens(gpt2, EIFFEL)
    monkeypatch.setattr(lens_file, "STATES_AT_ONCE", 7)
    parts = logit_lens(gpt2, EIFFEL)
    np.testing.assert_array_equal(parts.rank, whole.rank)
    np.testing.assert_allclose(parts.log_p, whole.log_p, rtol=0, atol=1e-5)


def test_a_bare_text_is_read_for_the_first_choice_of_the_model(gpt2: Model) -> None:
    found = logit_lens(gpt2, "The capital")
    assert found.rank[-1, -1] == 1
    assert found.subject is None
    assert found.foil_rank is None
    one = logit_lens(gpt2, gpt2.tokenizer.decode([300]))
    assert one.rank.shape == (1, 3)


def test_a_profile_reads_what_single_lenses_read(gpt2: Model, profile: Profile) -> None:
    for i, fact in enumerate(CITIES):
        single = logit_lens(gpt2, fact)
        assert single.subject is not None
        for place, t in (("last", -1), ("subject_last", single.subject[1] - 1)):
            np.testing.assert_allclose(profile.values[f"probability/{place}"][i], np.exp(single.log_p[t]), atol=1e-5)
            np.testing.assert_array_equal(profile.values[f"reciprocal_rank/{place}"][i], 1 / single.rank[t])


def test_the_control_is_the_mean_over_the_other_answers_of_the_relation(gpt2: Model, profile: Profile) -> None:
    others = [np.exp(logit_lens(gpt2, EIFFEL, answer=answer).log_p[-1]) for answer in ("Seattle", "Boston")]
    np.testing.assert_allclose(profile.values["probability/last/control"][0], np.mean(others, axis=0), atol=1e-5)
    assert np.isnan(profile.values["probability/last/control"][3]).all()  # Japan stands alone in its relation
    found = profile.contrast("probability/last", "probability/last/control", group="all")
    assert [each.n for each in found] == [3] * 3
    one = lens_profile(gpt2, CITIES, controls=1)
    assert not np.array_equal(one.values["probability/last/control"], profile.values["probability/last/control"][:3])


def test_an_answer_with_the_same_first_token_is_no_control(gpt2: Model) -> None:
    same = Fact("Space Needle", "The {} is located in the city of", "Paris France", id="same", relation="city")
    found = lens_profile(gpt2, [EIFFEL, same])
    assert np.isnan(found.values["probability/last/control"]).all()
    alias = Fact(EIFFEL.subject, EIFFEL.prompt, "Paris", id="alias", relation="city", answer_aliases=("Seattle",))
    found = lens_profile(gpt2, [alias, CITIES[1]])  # Seattle counts as right for the first
    assert np.isnan(found.values["probability/last/control"][0]).all()
    assert np.isfinite(found.values["probability/last/control"][1]).all()


def test_unknown_facts_and_bad_facts_are_reported_and_stop_no_other(
    gpt2: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def knowledge(model: Model, facts: Any) -> list[Knowledge]:
        return [replace(each, right=(each.fact == "known",)) for each in locate_known.knowledge(model, facts)]

    monkeypatch.setattr(reading, "knowledge", knowledge)
    known = Fact(EIFFEL.subject, EIFFEL.prompt, "Rome", id="known", relation="city")
    nothing = Fact("Japan", "The capital of {} is", id="nothing")
    long = Fact("Japan " * 300 + "Japan", "The capital of {} is", "Tokyo", id="long")
    found = lens_profile(gpt2, [nothing, known, long, EIFFEL])
    assert [fact.id for fact in found.facts] == ["known", "eiffel"]
    assert found.known == (True, False)
    assert [fact for fact, _ in found.failures] == ["nothing", "long"]
    assert found.to_json()["n"] == {"known": 1, "unknown": 1, "all": 2}
    own = found.values["reciprocal_rank/last"][:, 2]
    assert [
        each[2].value for each in (found.estimates("reciprocal_rank/last", group=g) for g in ("known", "unknown"))
    ] == [
        pytest.approx(own[0]),
        pytest.approx(own[1]),
    ]
    assert set(found.to_json()["means"]) == {"known", "unknown"}
    with pytest.raises(InputError, match="None of the 1 facts"):
        lens_profile(gpt2, [nothing])


def test_the_model_is_left_as_it_was_and_dropout_is_off_meanwhile() -> None:
    model = model_of("gpt2")
    quiet, quiet_profile = logit_lens(model, EIFFEL), lens_profile(model, FACTS)
    model.net.train()
    before = model.fingerprint()
    np.testing.assert_array_equal(logit_lens(model, EIFFEL).log_p, quiet.log_p)
    again = lens_profile(model, FACTS)
    np.testing.assert_array_equal(again.values["probability/last"], quiet_profile.values["probability/last"])
    assert model.net.training
    assert model.fingerprint() == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.net.modules())


def test_results_are_written_whole_and_plot(gpt2: Model, profile: Profile, tmp_path: Any) -> None:
    for name, found in (("lens", logit_lens(gpt2, EIFFEL)), ("profile", profile)):
        found.save(str(tmp_path / name))  # type: ignore[attr-defined]
        assert json.loads((tmp_path / name).read_text("utf-8"))["settings"]["model"] == gpt2.name
        assert "NaN" not in (tmp_path / name).read_text("utf-8")
    pytest.importorskip("matplotlib")
    logit_lens(gpt2, EIFFEL).plot()
    profile.plot()


def test_a_mistake_is_answered_with_one_sentence(gpt2: Model, profile: Profile) -> None:
    with pytest.raises(SettingError, match="1 to 420 top tokens, got 0"):
        logit_lens(gpt2, EIFFEL, top=0)
    with pytest.raises(SettingError, match="at least one control answer"):
        lens_profile(gpt2, FACTS, controls=0)
    with pytest.raises(SettingError, match="no curve 'probability/lost'. Did you mean 'probability/last'"):
        profile.estimates("probability/lost")
    with pytest.raises(SettingError, match="no group 'knwon'"):
        profile.estimates("probability/last", group="knwon")
