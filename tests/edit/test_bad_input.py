"""Mistakes of a caller: each is answered with one sentence that says what to do."""

from typing import Any

import pytest

import palimpsest as pal
from oracles.small import EIFFEL, LAYER, documents, model_of
from palimpsest.edit import SecondMoment, editor, method_names
from palimpsest.errors import AnatomyError, EditError, FactError, InputError, PalimpsestError, SettingError, WeightError
from palimpsest.facts import Fact

MODEL = model_of("llama")


@pytest.mark.parametrize(
    ("settings", "kind", "sentence"),
    [
        ({"method": "rmoe"}, SettingError, "Did you mean 'rome'"),
        ({"method": "zzz"}, SettingError, "Choose one of: .*rome"),
        ({"preset": "fixd"}, SettingError, "Did you mean 'fixed'"),
        ({"learning_rat": 0.1}, SettingError, "Did you mean 'learning_rate'"),
        ({"values": 3}, SettingError, "no setting 'values'"),
        ({"key": "median"}, SettingError, "mean, halves and bare, got 'median'"),
        ({"direction": "median"}, SettingError, "mean, halves and bare, got 'median'"),
        ({"kl_at": "first"}, SettingError, "got 'first'"),
        ({"steps": 0}, SettingError, "1 or more, got 0"),
        ({"layers": 3}, SettingError, "Did you mean 2"),
        ({"layers": -1}, SettingError, "Did you mean 0"),
        ({"layers": (0, 1)}, SettingError, "one layer, got 2"),
        ({"layers": ()}, SettingError, "one layer or more, got 0"),
        ({"text": ""}, InputError, "text for second moments is empty"),
        ({"text": "Too short."}, EditError, "singular: it is 48 wide"),
        ({"moments": {LAYER: SecondMoment.identity(7)}}, WeightError, "48"),
    ],
)
def test_settings(settings: dict[str, Any], kind: type[PalimpsestError], sentence: str) -> None:
    given = {"layers": LAYER, "text": documents(), "contexts": ((5, 1),), "steps": 1} | settings
    with pytest.raises(kind, match=sentence) as refused:
        pal.edit(MODEL, [EIFFEL], **given)
    assert "\n" not in str(refused.value)


def test_facts() -> None:
    given: dict[str, Any] = {"layers": LAYER, "text": documents(), "contexts": ((5, 1),), "steps": 1}
    with pytest.raises(EditError, match="no fact to edit"):
        pal.edit(MODEL, [], **given)
    before = MODEL.fingerprint()
    unfinished = Fact("Japan", "The capital of {} is", "Tokyo")
    for facts in ([unfinished], [EIFFEL, unfinished]):
        with pytest.raises(FactError, match="no target_new"):
            pal.edit(MODEL, facts, **given)
    assert MODEL.fingerprint() == before
    assert MODEL.applied == []
    with pytest.raises(InputError, match="at most 256"):
        pal.edit(MODEL, [Fact("Japan", "word " * 300 + "{} is", "x", "y")], **given)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_experts_without_a_single_weight_are_refused_with_the_reason(family: str) -> None:
    with pytest.raises(AnatomyError, match="mixture of experts.*Locating works"):
        pal.edit(model_of(family), [EIFFEL], layers=1, text=documents())


def test_names() -> None:
    assert "rome" in method_names()
    prepared = editor(MODEL, "rome", layers=LAYER, moments={LAYER: SecondMoment.identity(48)}, contexts=((5, 1),))
    assert prepared.name == "rome"
