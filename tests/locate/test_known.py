"""The gate of known facts, with answers put into the model's mouth, and the eligibility of CounterFact."""

import pytest
import torch

from oracles.small import EIFFEL, FACTS, JAPAN, model_of, smollm2
from oracles.textbook_scores import nll
from palimpsest.errors import FactError
from palimpsest.facts import Fact
from palimpsest.locate import eligible, knowledge, known
from palimpsest.locate.answers import first_token
from palimpsest.model import Model

MODEL = model_of("gpt2")
FRANCE = Fact(
    "France",
    "The capital of {} is",
    "Paris",
    paraphrases=("France has the capital", "The seat of government of France is", "Never asked, France"),
    answer_aliases=("Lutetia",),
)


def says(monkeypatch: pytest.MonkeyPatch, spoken: dict[str, str]) -> list[int]:
    """Let the model answer each text as told, with probability 0.9; returns the sizes of the calls."""
    calls: list[int] = []

    def logits(model: Model, texts: list[str]) -> torch.Tensor:
        calls.append(len(texts))
        p = torch.full((len(texts), 420), 0.1 / 419)
        for row, text in enumerate(texts):
            p[row, first_token(model, text, spoken[text])] = 0.9
        return p.log()

    monkeypatch.setattr(known, "next_token_logits", logits)
    return calls


@pytest.mark.parametrize(
    ("answers", "right", "is_known"),
    [
        (("Paris", "Paris", "Paris"), (True, True, True), True),
        (("Paris", "Kyoto", "Paris"), (True, False, True), True),
        (("Kyoto", "Lutetia", "Paris"), (False, True, True), True),
        (("Paris", "Kyoto", "Kyoto"), (True, False, False), False),
        (("Kyoto", "Kyoto", "Kyoto"), (False, False, False), False),
    ],
)
def test_two_of_the_first_three_wordings(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[str, ...], right: tuple[bool, ...], is_known: bool
) -> None:
    says(monkeypatch, dict(zip(FRANCE.wordings, answers, strict=False)))
    (found,) = knowledge(MODEL, [FRANCE])
    assert found.fact == FRANCE.id
    assert found.right == right
    assert found.known is is_known
    assert [p > 0.8 for p in found.probability] == list(right)
    assert found.said[0] == MODEL.tokenizer.decode([first_token(MODEL, FRANCE.text, answers[0])])


@pytest.mark.parametrize(("second", "is_known"), [("Paris", True), ("Kyoto", False)])
def test_fewer_than_three_wordings_must_all_be_right(
    monkeypatch: pytest.MonkeyPatch, second: str, is_known: bool
) -> None:
    fact = Fact("France", "The capital of {} is", "Paris", paraphrases=FRANCE.paraphrases[:1])
    says(monkeypatch, {fact.wordings[0]: "Paris", fact.wordings[1]: second})
    assert knowledge(MODEL, [fact])[0].known is is_known


def test_facts_keep_their_order_also_with_one_id_twice_and_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "CHUNK", 2)
    twin = Fact(FRANCE.subject, FRANCE.prompt, "Kyoto")
    assert twin.id == FRANCE.id
    calls = says(monkeypatch, dict.fromkeys(FRANCE.wordings, "Paris"))
    found = knowledge(MODEL, [twin, FRANCE, twin])
    assert [k.known for k in found] == [False, True, False]
    assert [len(k.right) for k in found] == [1, 3, 1]
    assert max(calls) == 2


def test_no_facts_no_knowledge() -> None:
    assert knowledge(MODEL, []) == []
    assert eligible(MODEL, []) == []


def test_what_a_model_says_is_its_likeliest_token() -> None:
    ids = torch.tensor([MODEL.tokenizer(EIFFEL.text).input_ids])
    p = MODEL.net(input_ids=ids).logits[0, -1].softmax(-1)
    (found,) = knowledge(MODEL, [EIFFEL])
    assert found.said == (MODEL.tokenizer.decode([int(p.argmax())]),)
    paris = MODEL.tokenizer(" Paris").input_ids[0]
    assert found.probability == pytest.approx((float(p[paris]),), rel=1e-4)


def test_eligible_compares_both_answers() -> None:
    turned = [Fact(f.subject, f.prompt, f.target_new, f.target_true) for f in FACTS]
    expected = [
        nll(MODEL.net, MODEL.tokenizer, f.text, str(f.target_true))
        < nll(MODEL.net, MODEL.tokenizer, f.text, str(f.target_new))
        for f in FACTS
    ]
    assert eligible(MODEL, FACTS) == expected
    assert eligible(MODEL, turned) == [not each for each in expected]


def test_a_fact_without_an_answer_is_refused() -> None:
    with pytest.raises(FactError, match="no target_true"):
        knowledge(MODEL, [Fact("Japan", "The capital of {} is")])
    with pytest.raises(FactError, match="no target_new"):
        eligible(MODEL, [JAPAN, Fact("Japan", "The capital of {} is", "Tokyo")])
    with pytest.raises(FactError, match="no target_true"):
        eligible(MODEL, [Fact("Japan", "The capital of {} is", None, "Kyoto")])


def test_smollm2_knows_the_eiffel_tower() -> None:
    (found,) = knowledge(smollm2(), [EIFFEL])
    assert found.known
    assert found.probability[0] == pytest.approx(0.70, abs=0.03)
    assert eligible(smollm2(), [EIFFEL]) == [True]
