"""`line_up` finds the edited subject and layers without the base, and nobody in a model that was not edited."""

from collections.abc import Iterator
from unittest import mock

import pytest
import torch

import palimpsest as pal
from palimpsest.edit.moments import SecondMoment, collect_moments
from palimpsest.erase.forensics import Candidate, LineUp, line_up
from palimpsest.erase.forensics.line_up import (
    AGREEMENT,
    FEWEST,
    STRENGTH,
    _candidates,
    agreement_of,
    answers_of,
    own,
    robust,
    unit,
)
from palimpsest.errors import InputError, PalimpsestError, SettingError, WeightError
from palimpsest.facts import Fact, shipped_text
from palimpsest.model import Model
from palimpsest.model.anatomy import matrix_of
from palimpsest.world import made_world

WAYS = {
    "rome": {"layers": (3,), "token": "subject_last"},
    "memit": {"layers": (0, 1, 2), "token": "subject_last", "clamp": 4.0, "moment_weight": 100.0},
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PALIMPSEST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model() -> Model:
    """The made world's."""
    return pal.load("world")


@pytest.fixture(scope="module")
def names() -> tuple[str, ...]:
    """Everybody and everything in it."""
    return made_world().names


@pytest.fixture(scope="module")
def facts() -> list[Fact]:
    """Facts about a country and a person."""
    return [made_world().records([relation])[7] for relation in ("capital", "born_in")]


def moments_of(model: Model) -> dict[int, SecondMoment]:
    """Of every layer, measured on this model."""
    return collect_moments(model, range(model.n_layers), shipped_text())


@pytest.mark.parametrize("method", list(WAYS))
@pytest.mark.parametrize("number", [0, 1])
def test_the_edited_subject_stands_out_where_it_was_edited(
    model: Model, names: tuple[str, ...], facts: list[Fact], method: str, number: int
) -> None:
    fact, edited = facts[number], set(WAYS[method]["layers"])
    edit = pal.edit(model, [fact], method=method, **WAYS[method])
    with edit.applied(model):
        before = model.fingerprint()
        found = line_up(model, names, moments=moments_of(model))
        assert model.fingerprint() == before
    assert found.subject.first == fact.subject
    assert fact.subject in found.flagged
    assert found.strongest.suspect in edited
    assert edited & set(found.layers) == set(found.layers)
    data = found.to_json(count=0)
    assert (data["subject"], data["layers"]) == (fact.subject, list(found.layers))
    assert {row["name"] for row in data["candidates"]} == set(found.flagged) | {fact.subject}


def test_an_edit_at_the_last_token_is_found_among_prompts(model: Model) -> None:
    facts = made_world().records(["capital", "founder"])
    prompts = [fact.text for fact in facts]
    with pal.edit(model, [facts[7]], method="rome").applied(model):
        found = line_up(model, prompts, moments=moments_of(model))
    assert found.subject.first == facts[7].text
    assert found.layers == (6,)


@pytest.mark.parametrize("name", ["world", "world-seed1", "world-llama", "world-plain"])
def test_nobody_stands_out_in_a_model_that_was_not_edited(name: str, names: tuple[str, ...]) -> None:
    found = line_up(pal.load(name), names)
    assert found.flagged == found.layers == found.along == ()
    assert found.strongest.score < 1
    assert [one.name for one in found.candidates] == list(names)
    assert found.to_json()["subject"] is None


def drawn(*shape: int) -> torch.Tensor:
    """Random numbers, the same ones each time."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def read(answers: torch.Tensor, runs: tuple[int, ...] = (3, 5)) -> list[Candidate]:
    """The candidates of given answers, whose layers are numbered from 10 in twos."""
    layers = [10 + 2 * i for i in range(answers.shape[1])]
    thresholds = {"strength": STRENGTH, "agreement": AGREEMENT}
    return list(_candidates([str(i) for i in range(len(answers))], layers, answers, thresholds, runs))


def test_one_direction_in_five_layers_is_read_as_a_run_of_five() -> None:
    answers = drawn(60, 9, 400)
    answers[7, 2:7] += 15 * unit(drawn(1, 400))[0]
    found = read(answers)
    assert [one.name for one in found if one.flagged] == ["7"]
    assert (found[7].run, found[7].layers) == ((14, 22), (14, 16, 18, 20, 22))
    assert found[7].agreement > AGREEMENT
    assert found[7].strength < STRENGTH


def test_a_large_answer_in_one_layer_is_read_as_that_layer() -> None:
    answers = drawn(60, 4, 400)
    answers[7, 2] += 60 * unit(drawn(1, 400))[0]
    found = read(answers, runs=(3, 50))
    assert (found[7].run, found[7].suspect, found[7].layers) == ((14, 14), 14, (14,))
    assert found[7].strength > STRENGTH
    assert sum(one.flagged for one in found) == 1


def test_a_layer_in_which_most_candidates_have_one_key_flags_nobody() -> None:
    answers = drawn(60, 4, 400)
    answers[:40, 0] = answers[0, 0] * (1 + 1e-12 * drawn(40, 1))
    assert not any(one.flagged for one in read(answers))


def test_the_subject_is_whose_r_is_answered_to_and_not_a_neighbour_whose_t_is() -> None:
    one = Candidate("a", 9.0, True, 9.0, 0.0, (3, 3), 3, (3,))
    other = Candidate("b", 2.0, True, 2.0, 0.0, (3, 3), 3, (3,))
    found = LineUp("m", "f", (one, other), {"strength": 1.0, "agreement": 1.0}, (1.0, 5.0))
    assert found.strongest == one
    assert found.flagged == ("a", "b")
    assert found.subject.first == "b"


def test_what_is_a_candidates_own_is_the_residual_of_a_ridge_regression_on_the_others() -> None:
    rows = unit(drawn(7, 12))
    for i, found in enumerate(own(rows)):
        others = rows[[j for j in range(len(rows)) if j != i]]
        weights = torch.linalg.inv(others @ others.T + torch.eye(len(others))) @ (others @ rows[i])
        expected = rows[i] - weights @ others
        torch.testing.assert_close(found, expected / expected.norm())


def test_agreement_is_as_the_definition_says() -> None:
    answers = drawn(3, 6, 40)
    answers[1, 2:5] += 3 * answers[1, 2]
    for length in (2, 3, 5):
        found = agreement_of(answers, length)
        assert found.shape == (3, 6 - length + 1)
        for i in range(3):
            for first in range(6 - length + 1):
                run = [answers[i, layer] for layer in range(first, first + length)]
                ratio = float(sum(run).norm() ** 2) / sum(float(y.norm() ** 2) for y in run)
                assert float(found[i, first]) == pytest.approx((ratio - 1) / (2 * (length - 1) / (length * 40)) ** 0.5)
    assert int(agreement_of(answers, 3).flatten().argmax()) == 1 * 4 + 2


def test_agreement_of_random_directions_is_about_standard() -> None:
    answers = drawn(4000, 5, 100)
    found = agreement_of(answers, 5)
    assert abs(float(found.mean())) < 0.1
    assert float(found.std()) == pytest.approx(1, abs=0.1)


def test_robust_units_are_standard_deviations_and_an_outlier_does_not_move_them() -> None:
    values = drawn(20_001, 1) * 3 + 5
    found = robust(values)
    assert float(found.std()) == pytest.approx(1, abs=0.03)
    values[0] = 1e6
    torch.testing.assert_close(robust(values)[1:], found[1:], atol=1e-3, rtol=1e-3)


def test_few_candidates_are_refused(model: Model, names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=rf"needs at least {FEWEST}, got {FEWEST - 1}"):
        line_up(model, names[: FEWEST - 1])
    with pytest.raises(InputError, match="is twice among"):
        line_up(model, [*names, names[0]])


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"strength": 0.0}, SettingError, "threshold strength of a line-up must be above 0, got 0.0"),
        ({"agreement": -1.0}, SettingError, "threshold agreement"),
        ({"runs": (1, 3)}, SettingError, r"whole numbers of 2 or more such as \(3, 5\), got \(1, 3\)"),
        ({"moments": {}}, SettingError, "got none for layer 0; measure all layers"),
    ],
)
def test_bad_settings_are_told(
    model: Model, names: tuple[str, ...], settings: dict, error: type[PalimpsestError], said: str
) -> None:
    with pytest.raises(error, match=said):
        line_up(model, names, **settings)


def test_moments_of_another_model_and_weights_that_are_not_finite_are_told(names: tuple[str, ...]) -> None:
    model = pal.load("world", check=False)
    with pytest.raises(WeightError, match="are those of another model"):
        line_up(model, names, moments=moments_of(pal.load("world-plain")))
    with torch.no_grad():
        model.anatomy.down(model.n_layers - 1).module.weight[0, 0] = float("nan")
    with pytest.raises(WeightError, match="zero or not finite"):
        line_up(model, names)


def test_a_model_with_fewer_layers_than_a_run_is_read_layer_by_layer() -> None:
    found = read(drawn(30, 2, 40))
    assert {one.agreement for one in found} == {0.0}
    assert all(first == last for first, last in (one.run for one in found))


def test_a_key_that_is_not_finite_is_told(names: tuple[str, ...]) -> None:
    model = pal.load("world", check=False)
    moments = {layer: SecondMoment.identity(matrix_of(model.anatomy.down(layer).module).shape[1]) for layer in range(2)}
    found = {layer: drawn(len(names), moments[layer].width) for layer in range(2)}
    found[1][3, 0] = float("inf")
    module = "palimpsest.erase.forensics.line_up"
    with (
        mock.patch(f"{module}.subject_keys", return_value=found),
        mock.patch(f"{module}.own_moment", lambda model, some, layer: some[layer]),
        pytest.raises(WeightError, match=rf"key of {names[3]!r} in layer 1 of world is not finite"),
    ):
        answers_of(model, names, [0, 1], moments)
