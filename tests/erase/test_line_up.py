"""`line_up` finds the edited subject and layers without the base, and nobody in a model that was not edited."""

from collections.abc import Iterator

import pytest
import torch

import palimpsest as pal
from palimpsest.edit.moments import SecondMoment, collect_moments
from palimpsest.erase.forensics import LineUp, line_up
from palimpsest.erase.forensics.line_up import FEWEST, agreement_of, own, robust
from palimpsest.errors import InputError, PalimpsestError, SettingError, WeightError
from palimpsest.facts import Fact, shipped_text
from palimpsest.model import Model
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
    fact = facts[number]
    edit = pal.edit(model, [fact], method=method, **WAYS[method])
    with edit.applied(model):
        before = model.fingerprint()
        found = line_up(model, names, moments=moments_of(model))
        assert model.fingerprint() == before
    assert found.subject.first == fact.subject
    assert set(found.layers) <= set(WAYS[method]["layers"])
    assert fact.subject in found.flagged
    row = found.to_rows()[0]
    assert row["suspect"] in found.layers
    assert found.to_json()["candidates"][0] == row


def test_nobody_stands_out_in_a_model_that_was_not_edited(model: Model, names: tuple[str, ...]) -> None:
    found = line_up(model, names)
    assert found.flagged == found.layers == ()
    assert max(one.score for one in found.candidates) < 1
    assert [one.name for one in found.candidates] == list(names)


def test_what_is_a_candidates_own_is_the_residual_of_a_ridge_regression_on_the_others() -> None:
    r = torch.randn(7, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit = r / r.norm(dim=1, keepdim=True)
    for i, found in enumerate(own(unit)):
        others = unit[[j for j in range(len(r)) if j != i]]
        weights = torch.linalg.inv(others @ others.T + torch.eye(len(others))) @ (others @ unit[i])
        expected = unit[i] - weights @ others
        torch.testing.assert_close(found, expected / expected.norm())


def test_agreement_is_as_the_definition_says() -> None:
    answers = torch.randn(3, 6, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
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
    answers = torch.randn(4000, 5, 100, generator=torch.Generator().manual_seed(0))
    found = agreement_of(answers, 5)
    assert abs(float(found.mean())) < 0.1
    assert float(found.std()) == pytest.approx(1, abs=0.1)


def test_robust_units_are_standard_deviations_and_an_outlier_does_not_move_them() -> None:
    values = torch.randn(20_001, generator=torch.Generator().manual_seed(0)) * 3 + 5
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
    with pytest.raises(WeightError):
        line_up(model, names, moments=moments_of(pal.load("world-plain")))
    with torch.no_grad():
        model.anatomy.down(model.n_layers - 1).module.weight[0, 0] = float("nan")
    with pytest.raises(WeightError, match="zero or not finite"):
        line_up(model, names)


def test_runs_longer_than_the_model_are_passed_over(model: Model, names: tuple[str, ...]) -> None:
    found = line_up(model, names, moments=moments_of(model), runs=(50,))
    assert isinstance(found, LineUp)
    assert {one.agreement for one in found.candidates} == {0.0}
