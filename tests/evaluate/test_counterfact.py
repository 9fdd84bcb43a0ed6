"""CounterFact's metrics against the textbook version and a hand-computed example."""

from math import exp

import pytest
import torch

from families import byte_tokenizer
from oracles.small import EIFFEL, FACTS, JAPAN, model_of, with_probes
from oracles.textbook_scores import metrics, nll, score
from palimpsest.errors import FactError
from palimpsest.evaluate import counterfact_scores
from palimpsest.evaluate.scores import Scores
from palimpsest.evaluate.suites import counterfact
from palimpsest.facts import Fact, Probe
from palimpsest.model import Model

NAMES = ("es", "em", "ps", "pm", "ns", "nm")
ASKED = tuple(
    with_probes(
        fact,
        [f"Everyone knows {fact.subject}. {fact.text}", f"{fact.subject}:"],
        [("The Louvre is in", "Paris"), ("The capital of France is", None), ("Zürich is", "Swiss or French")],
    )
    for fact in FACTS
)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel", "opt"])
def test_metrics_are_those_of_one_forward_pass_each(family: str) -> None:
    model = model_of(family, dtype=torch.float64, tokenizer=byte_tokenizer(bos=family == "llama"))
    for fact, found in zip(ASKED, counterfact_scores(model, ASKED), strict=True):
        expected = metrics(model.net, model.tokenizer, fact)
        assert {name: found[name] for name in NAMES} == pytest.approx(expected, abs=1e-10)
        assert found["nll_new"] == pytest.approx(nll(model.net, model.tokenizer, fact.text, str(fact.target_new)))
        assert found["nll_true"] == pytest.approx(nll(model.net, model.tokenizer, fact.text, str(fact.target_true)))


def test_facts_together_are_facts_alone() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    for fact, found in zip(ASKED, counterfact_scores(model, ASKED), strict=True):
        assert found == pytest.approx(counterfact_scores(model, [fact])[0], abs=1e-10)


def by_hand(monkeypatch: pytest.MonkeyPatch, told: dict[tuple[str, str], float]) -> None:
    """Let the model give these nll."""
    monkeypatch.setattr(counterfact, "answer_nll", lambda model, pairs: [told[pair] for pair in pairs])


def test_an_example_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    fact = with_probes(JAPAN, ["A", "B"], [("M", "own"), ("N", None)])
    new, old = str(fact.target_new), str(fact.target_true)
    by_hand(
        monkeypatch,
        {
            (fact.text, new): 1.0, (fact.text, old): 2.0,
            ("A", new): 3.0, ("A", old): 1.0,
            ("B", new): 0.5, ("B", old): 0.7,
            ("M", new): 4.0, ("M", "own"): 0.1,
            ("N", new): 1.0, ("N", old): 1.0,
        },
    )  # fmt: skip
    (found,) = counterfact_scores(model_of("gpt2"), [fact])
    assert found == pytest.approx(
        {
            "es": 1.0,
            "em": exp(-1) - exp(-2),
            "ps": 0.5,
            "pm": (exp(-3) - exp(-1) + exp(-0.5) - exp(-0.7)) / 2,
            "ns": 0.5,  # a tie is no win
            "nm": (exp(-0.1) - exp(-4)) / 2,
            "nll_new": 1.0,
            "nll_true": 2.0,
        }
    )


def test_s_is_the_harmonic_mean_of_the_three_means() -> None:
    values = {"es": (1.0, 1.0, 0.0), "ps": (1.0, 0.5, 0.0), "ns": (0.5, 1.0, 0.9)}
    records = [
        {
            "id": str(i),
            "relation": "r",
            "subject": str(i),
            "eligible": True,
            "pre": {name: values[name][i] for name in values},
        }
        for i in range(3)
    ]
    found = Scores(tuple(records), {}).estimate("s", "pre")
    assert found is not None
    assert found.value == pytest.approx(score(values["es"], values["ps"], values["ns"]))
    assert found.value == pytest.approx(3 / (1 / (2 / 3) + 1 / 0.5 + 1 / 0.8))


def test_facts_without_paraphrases_or_neighbours_lack_those_metrics() -> None:
    (found,) = counterfact_scores(model_of("gpt2"), [EIFFEL])
    assert (found["ps"], found["pm"], found["ns"], found["nm"]) == (None, None, None, None)
    assert found["es"] in (0.0, 1.0)


@pytest.mark.parametrize("missing", ["target_true", "target_new"])
def test_both_answers_are_needed(missing: str) -> None:
    answers = {"target_true": "Tokyo", "target_new": "Kyoto"} | {missing: None}
    with pytest.raises(FactError, match=f"no {missing}"):
        counterfact_scores(model_of("gpt2"), [Fact("Japan", "The capital of {} is", **answers)])


def test_a_neighbour_is_asked_for_its_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def listen(model: Model, pairs: list[tuple[str, str]]) -> list[float]:
        asked.extend(pairs)
        return [1.0] * len(pairs)

    monkeypatch.setattr(counterfact, "answer_nll", listen)
    fact = Fact("Japan", "{} has", "Tokyo", "Kyoto", neighbours=(Probe("France has", "Paris"), Probe("Peru has")))
    counterfact_scores(model_of("gpt2"), [fact])
    assert ("France has", "Paris") in asked
    assert ("Peru has", "Tokyo") in asked
