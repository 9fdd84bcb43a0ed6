"""What several suites count, each once.

token accuracy(a | x)    share of the answer's tokens that are the likeliest, each after the true ones before it
exact(a | x)             1 if all of them are; greedy writing then gives the answer, token by token
agreement(a | x)         share of the answer's places at which the edited and the unedited model find the same token likeliest
says(text, spellings)    1 if any spelling of an answer stands in a text, in whole words (`palimpsest.evaluate.words`)
"""

from collections.abc import Iterable, Iterator, Sequence

from palimpsest.errors import FactError, InputError
from palimpsest.evaluate.asks import Ask, Likelihood
from palimpsest.evaluate.suite import Answers
from palimpsest.evaluate.words import contains
from palimpsest.facts import Case, Fact, Probe


def token_accuracy(answers: Answers, text: str, answer: str) -> float:
    """Share of the answer's tokens that are the likeliest under teacher forcing."""
    right = answers.likelihood(text, answer).right
    return sum(right) / len(right)


def exact(answers: Answers, text: str, spellings: Sequence[str]) -> bool:
    """Whether all tokens of any of the spellings are the likeliest."""
    return any(all(answers.likelihood(text, spelling).right) for spelling in spellings)


def agreement(before: Answers, after: Answers, text: str, answer: str) -> float:
    """Share of the places of an answer at which two models find the same token likeliest."""
    one, other = before.likelihood(text, answer).best, after.likelihood(text, answer).best
    if not one or len(one) != len(other):
        raise InputError(
            f"The likeliest tokens at {answer!r} after {text!r} are missing, so two models cannot be compared."
        )
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def spellings(probe: Probe) -> tuple[str, ...]:
    """The answer of a probe and its other spellings."""
    return () if probe.answer is None else (probe.answer, *probe.aliases)


def answered(probes: Iterable[Probe]) -> Iterator[tuple[str, str]]:
    """Prompt and answer of each probe that has one."""
    return ((probe.prompt, probe.answer) for probe in probes if probe.answer is not None)


def likelihoods(pairs: Iterable[tuple[str, str]]) -> list[Ask]:
    """What to ask for the nll and the rightness of each answer after its text."""
    return [Likelihood(text, answer) for text, answer in pairs]


def spoken(written: str) -> str:
    """What a model wrote up to the end of its first line: there an answer ends."""
    return written.strip().partition("\n")[0].strip()


def says(text: str, spellings: Iterable[str]) -> bool:
    """Whether any of the spellings stands in the text."""
    return any(contains(text, spelling) for spelling in spellings)


def says_all(text: str, answers: Iterable[Iterable[str]]) -> bool:
    """Whether every answer stands in the text in one of its spellings."""
    return all(says(text, spellings) for spellings in answers)


def lacks(case: Case, suite: str, what: str) -> FactError:
    """The error for a case without what a suite needs."""
    return FactError(f"The case {case.id} has no {what}, which the suite {suite!r} needs.")


def mean(values: Iterable[float | bool]) -> float | None:
    """The mean, None of nothing."""
    found = [float(value) for value in values]
    return sum(found) / len(found) if found else None


def new_answer(fact: Fact) -> str:
    """The answer that an edit writes; raises `FactError` where there is none."""
    if fact.target_new is None:
        raise FactError(
            f"The fact {fact.id} ({fact.text!r}) has no target_new; give the answer that an edit should write."
        )
    return fact.target_new
