"""Every metric of the CounterFact family against an example worked out by hand; no model takes part."""

from math import exp, inf, isnan, log

import pytest
import torch

from oracles.small import EIFFEL, JAPAN, model_of, with_probes
from palimpsest.errors import FactError, InputError, SettingError
from palimpsest.evaluate import counterfact_scores, evaluate, suite_of
from palimpsest.evaluate.asks import (
    Answer,
    Ask,
    Likelihood,
    LikelihoodAnswer,
    NextToken,
    NextTokenAnswer,
    Passage,
    PassageAnswer,
    Written,
)
from palimpsest.evaluate.suite import SUITES, Answers, Metric, Suite, Together, settings_of
from palimpsest.evaluate.suites.counterfact import CounterFact
from palimpsest.evaluate.suites.counterfact_plus import CounterFactPlus
from palimpsest.evaluate.suites.coverage import Coverage
from palimpsest.evaluate.suites.generation import Generation
from palimpsest.evaluate.suites.hase import Hase, gained
from palimpsest.evaluate.suites.locality import Locality, divergence
from palimpsest.evaluate.suites.mquake import Mquake
from palimpsest.evaluate.suites.pararel import ParaRel
from palimpsest.evaluate.suites.teacher_forcing import TeacherForcing
from palimpsest.evaluate.suites.text import Text
from palimpsest.facts import Fact, Probe
from palimpsest.facts.case import Case

FACT = with_probes(EIFFEL, ["A", "B"], [("M", "own"), ("N", None)])  # old Paris, new Rome
CASE = Case.of(FACT)


def told(nll: dict[tuple[str, str], float], right: dict[tuple[str, str], tuple[bool, ...]] | None = None) -> Answers:
    """A model that gives these nll."""
    marks = right or {}
    return Answers({Likelihood(*pair): LikelihoodAnswer(one, marks.get(pair, (True,))) for pair, one in nll.items()})


def distribution(*p: float) -> NextTokenAnswer:
    return NextTokenAnswer(torch.tensor(p).log())


def complete(suite: Suite, found: dict[str, float | None]) -> None:
    """Each metric that single cases have was measured."""
    assert {name for name, metric in suite.metrics.items() if not metric.harmonic_of} <= found.keys()


def test_counterfact() -> None:
    nll = {
        (FACT.text, "Rome"): 1.0, (FACT.text, "Paris"): 2.0,
        ("A", "Rome"): 3.0, ("A", "Paris"): 1.0,
        ("B", "Rome"): 0.5, ("B", "Paris"): 0.7,
        ("M", "Rome"): 4.0, ("M", "own"): 0.1,
        ("N", "Rome"): 1.0, ("N", "Paris"): 1.0,
    }  # fmt: skip
    suite = CounterFact()
    assert set(suite.asks(CASE)) == {Likelihood(*pair) for pair in nll}
    found = suite.measure(CASE, told(nll), told(nll))
    complete(suite, found)
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


def test_teacher_forcing() -> None:
    pairs = [(text, "Rome") for text in (FACT.text, "A", "B")]
    right = dict(zip(pairs, [(True, False, True), (True, True), (False, True)], strict=True))
    answers = told(dict.fromkeys(pairs, 1.0), right)
    suite = TeacherForcing()
    assert set(suite.asks(CASE)) == {Likelihood(*pair) for pair in pairs}
    found = suite.measure(CASE, answers, answers)
    complete(suite, found)
    assert found == pytest.approx({"tf_token_acc": 2 / 3, "tf_exact": 0.0, "p_tf_token_acc": 0.75, "p_tf_exact": 0.5})


def test_generation() -> None:
    texts = {FACT.text: " Rome. It is old.", "A": " Rome, Italy.", "B": " the city, not Rome\n"}
    answers = Answers({Written(text): said for text, said in texts.items()})
    suite = Generation()
    assert set(suite.asks(CASE)) == set(map(Written, texts))
    found = suite.measure(CASE, answers, answers)
    complete(suite, found)
    assert found == {
        "gen_exact": 1.0, "gen_begins": 1.0, "gen_contains": 1.0,
        "p_gen_exact": 0.0, "p_gen_begins": 0.5, "p_gen_contains": 1.0,
    }  # fmt: skip


def test_locality() -> None:
    fact = with_probes(EIFFEL, [], [("M", None), ("N", None)])
    fact = Fact(**(fact.to_json() | {"neighbours": fact.neighbours, "far": (Probe("F"),)}))
    case, suite = Case.of(fact), Locality()
    before = {"M": distribution(0.5, 0.5, 0.0), "N": distribution(0.9, 0.1, 0.0), "F": distribution(0.2, 0.3, 0.5)}
    after = {"M": distribution(0.25, 0.75, 0.0), "N": distribution(0.9, 0.1, 0.0), "F": distribution(0.6, 0.2, 0.2)}
    pre, post = (Answers({NextToken(text): p for text, p in side.items()}) for side in (before, after))
    assert set(suite.asks(case)) == set(map(NextToken, before))
    found = suite.measure(case, pre, post)
    complete(suite, found)
    assert found == pytest.approx(
        {
            "kl": (0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75)) / 2,  # before against after, whole nats
            "argmax_same": 0.5,
            "far_kl": 0.2 * log(0.2 / 0.6) + 0.3 * log(0.3 / 0.2) + 0.5 * log(0.5 / 0.2),
            "far_argmax_same": 0.0,
            "same_subject_kl": None,
            "same_subject_argmax_same": None,
        },
        abs=1e-6,
    )
    still = suite.measure(case, pre, pre)
    assert (still["kl"], still["argmax_same"], still["far_kl"]) == (0.0, 1.0, 0.0)


def test_hase() -> None:
    """p before and after the edit: 0.2 -> 0.6; paraphrases 0 -> 0.5, 0.5 -> 0.4; neighbours 0.2 -> 0.4, 0.5 -> 0.5."""
    texts = (FACT.text, "A", "B", "M", "N")
    pre, post = (
        told({(text, "Rome"): -log(p) for text, p in zip(texts, side, strict=True)})
        for side in ((0.2, 1e-12, 0.5, 0.2, 0.5), (0.6, 0.5, 0.4, 0.4, 0.5))
    )
    suite = Hase()
    found = suite.measure(CASE, pre, post)
    complete(suite, found)
    rewrite, paraphrase, neighbourhood = 0.4 / 0.8, (0.5 - 0.2) / 2, (1 - 0.2 / 0.8 + 1) / 2
    assert found == pytest.approx(
        {
            "hase_rewrite": rewrite,
            "hase_paraphrase": paraphrase,
            "hase_neighbourhood": neighbourhood,
            "hase_overall": 3 / (1 / rewrite + 1 / paraphrase + 1 / neighbourhood),
        }
    )
    nothing = suite.measure(CASE, pre, pre)
    assert nothing["hase_rewrite"] == 0
    assert nothing["hase_neighbourhood"] == 1
    assert nothing["hase_overall"] == pytest.approx(0, abs=1e-6)
    sure = told({(text, "Rome"): 0.0 for text in texts})
    assert suite.measure(CASE, sure, sure)["hase_rewrite"] is None
    alone = Case.of(EIFFEL)
    assert suite.measure(alone, pre, post)["hase_overall"] is None


def test_counterfact_plus() -> None:
    suite = CounterFactPlus()
    m, n = (f"The Eiffel Tower is located in the city of Rome. {near}" for near in ("M", "N"))
    nll: dict[Ask, Answer] = {
        Likelihood(m, "own"): LikelihoodAnswer(0.1, (True,)),
        Likelihood(m, "Rome"): LikelihoodAnswer(0.4, (True,)),
        Likelihood(n, "Paris"): LikelihoodAnswer(2.0, (True,)),
        Likelihood(n, "Rome"): LikelihoodAnswer(1.0, (True,)),
    }
    pre = Answers(nll | {NextToken(m): distribution(0.5, 0.5), NextToken(n): distribution(0.5, 0.5)})
    post = Answers(nll | {NextToken(m): distribution(0.9, 0.1), NextToken(n): distribution(0.5, 0.5)})
    assert set(suite.asks(CASE)) == {*nll, NextToken(m), NextToken(n)}
    found = suite.measure(CASE, pre, post)
    complete(suite, found)
    assert found == pytest.approx(
        {
            "ns_plus": 0.5,
            "nm_plus": (exp(-0.1) - exp(-0.4) + exp(-2) - exp(-1)) / 2,
            "kl_plus": (0.5 * log(0.5 / 0.9) + 0.5 * log(0.5 / 0.1)) / 2,
        },
        abs=1e-6,
    )


@pytest.mark.parametrize("name", ["teacher_forcing", "generation", "hase", "counterfact", "counterfact_plus"])
def test_a_fact_without_a_new_answer_is_refused(name: str) -> None:
    with pytest.raises(FactError, match="no target_new"):
        suite_of(name).asks(Case.of(Fact("Japan", "The capital of {} is", "Tokyo")))


@pytest.mark.parametrize("name", ["locality", "counterfact_plus"])
def test_prompts_that_should_stay_are_needed(name: str) -> None:
    with pytest.raises(FactError, match="neighbours"):
        suite_of(name).asks(Case.of(JAPAN))


def test_every_suite_can_be_had_and_no_two_share_a_metric() -> None:
    owner: dict[str, str] = {}
    for name in SUITES:
        suite = suite_of(name)
        assert isinstance(suite, Suite)
        assert suite.name == name
        for metric, meaning in suite.metrics.items():
            assert owner.setdefault(metric, name) == name, f"{metric} of {name} is also of {owner[metric]}"
            assert meaning.formula
            assert set(meaning.harmonic_of) <= suite.metrics.keys()


def test_suites_together() -> None:
    suite = suite_of("counterfact+teacher_forcing")
    assert suite.name == "counterfact+teacher_forcing"
    assert len(suite.asks(CASE)) == len(set(suite.asks(CASE))) == 10  # the new answers are asked once for both
    assert {"es", "s", "tf_exact"} <= suite.metrics.keys()
    with pytest.raises(SettingError, match="Did you mean 'locality'"):
        suite_of("counterfact+localty")
    with pytest.raises(SettingError, match="No suite"):
        suite_of([])

    class Other:
        name = "other"
        metrics = {"es": Metric("something else", None)}

        def asks(self, case: Case) -> list[Ask]:
            return []

        def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
            return {}

    with pytest.raises(SettingError, match="'es'"):
        Together([CounterFact(), Other()])


def test_the_suite_gives_the_numbers_of_the_function() -> None:
    model = model_of("llama")
    facts = [FACT, with_probes(JAPAN, ["So Japan has"], [("France has", "Paris")])]
    scores = evaluate(model, facts, suite="counterfact+locality+teacher_forcing+generation+hase+counterfact_plus")
    for record, expected in zip(scores.records, counterfact_scores(model, facts), strict=True):
        for name, value in expected.items():
            assert record["pre"][name] == pytest.approx(value, abs=1e-5)
        assert not {"kl", "argmax_same", "hase_rewrite", "kl_plus"} & record["pre"].keys()  # they compare with before


def test_a_file_of_another_kind_is_told_at_once() -> None:
    with pytest.raises(InputError, match="None of the 2 cases has what the suite locality asks, because: The fact"):
        evaluate(model_of("gpt2"), [EIFFEL, JAPAN], suite="locality")


def test_a_broken_model_is_not_told_as_one_that_kept_everything() -> None:
    whole, broken = distribution(0.5, 0.5), NextTokenAnswer(torch.full((2,), torch.nan))
    assert isnan(divergence(whole, broken))
    assert divergence(whole, distribution(1.0, 0.0)) == inf
    assert divergence(distribution(1.0, 0.0), whole) == pytest.approx(log(2))


def test_a_perplexity_too_large_for_a_float_is_infinite() -> None:
    page = Case("page", text="x y")
    before, after = (Answers({Passage("x y"): PassageAnswer(nll, 2)}) for nll in (2.0, 2000.0))
    found = Text().measure(page, before, after)
    assert found == {"text_nll": 1000.0, "text_perplexity": inf, "text_nll_rise": 999.0}


def test_nothing_is_gained_where_nothing_was_left() -> None:
    assert gained(1.0, 0.5) is None
    assert gained(1 - 1e-9, 0.5) is None  # and not minus half a milliard, which would rule every mean
    assert gained(0.5, 0.75) == 0.5


def test_settings_that_the_name_does_not_tell() -> None:
    assert settings_of(Mquake()) == settings_of(CounterFact()) == settings_of(ParaRel()) == {}
    assert settings_of(Mquake(shots="Q: a\nA: b\n\n")) == {"mquake": {"shots": "Q: a\nA: b\n\n"}}
    several = Together([CounterFact(), Coverage(0.9), ParaRel({"r": ("A", "B")})])
    with pytest.raises(SettingError, match="'coverage' stands twice with other settings"):
        Together([Coverage(0.9), Coverage(0.8)])
    assert settings_of(several) == {"coverage": {"level": 0.9}, "pararel": {"candidates": {"r": ("A", "B")}}}
