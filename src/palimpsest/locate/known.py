"""Which facts a model knows: the gate before every experiment, because whatever follows an unknown fact is noise.

known       on at least two of the first three wordings (the prompt and two paraphrases) the likeliest next token is the
            first token of the answer or of one of its aliases; with fewer than three wordings, on all of them
eligible    the old answer is likelier than the new one after the prompt: the gate of the CounterFact scores
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from palimpsest.errors import FactError, InputError, SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.locate.answers import answer_nll, first_token, next_token_logits
from palimpsest.model import Model
from palimpsest.runs import Progress

WORDINGS, NEEDED = 3, 2
CHUNK = 256  # prompts asked at once
FACTS_AT_ONCE = 64


@dataclass(frozen=True)
class Knowledge:
    """What a model says to one fact.

    Attributes:
        fact: its id.
        right: per wording, whether the answer came first.
        probability: of the answer's first token, per wording.
        said: the likeliest next token, per wording.
    """

    fact: str
    right: tuple[bool, ...]
    probability: tuple[float, ...]
    said: tuple[str, ...]

    @property
    def known(self) -> bool:
        """Right on two of three wordings (on all where there are fewer)."""
        return sum(self.right) >= min(NEEDED, len(self.right))


def knowledge(model: Model, facts: Sequence[Fact]) -> list[Knowledge]:
    """Ask every fact in its first three wordings.

    Raises:
        FactError: a fact has no `target_true`, so there is nothing to know.
    """
    asked: list[tuple[Fact, str]] = []
    for fact in facts:
        if fact.target_true is None:
            raise FactError(f"The fact {fact.id} ({fact.text!r}) has no target_true; there is nothing to know.")
        asked += [(fact, text) for text in fact.wordings[:WORDINGS]]
    said: list[tuple[bool, float, str]] = []
    for begin in range(0, len(asked), CHUNK):  # the logits of a whole file of facts would fill the memory
        chunk = asked[begin : begin + CHUNK]
        probability = next_token_logits(model, [text for _, text in chunk]).softmax(-1)
        for (fact, text), p in zip(chunk, probability, strict=True):
            accepted = {first_token(model, text, name) for name in (str(fact.target_true), *fact.answer_aliases)}
            best = int(p.argmax())
            mass = max(float(p[token]) for token in accepted)
            said.append((best in accepted, mass, model.tokenizer.decode([best])))
    result = []
    for fact in facts:
        own, said = said[: len(fact.wordings[:WORDINGS])], said[len(fact.wordings[:WORDINGS]) :]
        right, mass_of, words = zip(*own, strict=True)
        result.append(Knowledge(fact.id, right, mass_of, words))
    return result


Answer = TypeVar("Answer")


def ask_each(
    ask: Callable[[Model, Sequence[Fact]], list[Answer]],
    model: Model,
    facts: Sequence[Fact],
    *,
    progress: Progress | None = None,
) -> tuple[dict[int, Answer], dict[int, str]]:
    """`ask` (such as `knowledge` or `eligible`) for every fact, where a fact that cannot be asked stops no other.

    Returns:
        (answer by position in `facts`, one-sentence reason by position for those that could not be asked).
    """
    answers, failures = dict[int, Answer](), dict[int, str]()
    for begin in range(0, len(facts), FACTS_AT_ONCE):
        chunk = range(begin, min(begin + FACTS_AT_ONCE, len(facts)))
        try:
            answers |= dict(zip(chunk, ask(model, [facts[i] for i in chunk]), strict=True))
        except InputError:
            for i in chunk:
                try:
                    answers |= {i: ask(model, [facts[i]])[0]}
                except InputError as error:
                    failures[i] = str(error)
        if progress:
            progress(chunk.stop, len(facts), "facts asked")
    return answers, failures


def passing(
    model: Model, facts: Sequence[Fact], gate: str, *, limit: int | None = None, progress: Progress | None = None
) -> list[Fact]:
    """The first `limit` facts that pass a gate ("all", "known" or "eligible"), in order; one that cannot be asked fails it."""
    if gate == "all":
        return list(facts[:limit])
    kept: list[Fact] = []
    for begin in range(0, len(facts), FACTS_AT_ONCE):
        chunk = facts[begin : begin + FACTS_AT_ONCE]
        passes: dict[int, bool]
        if gate == "known":
            passes = {i: found.known for i, found in ask_each(knowledge, model, chunk)[0].items()}
        elif gate == "eligible":
            passes, _ = ask_each(eligible, model, chunk)
        else:
            raise SettingError(f"There is no gate {gate!r}.{did_you_mean(gate, ['all', 'known', 'eligible'])}")
        kept += [chunk[i] for i in sorted(passes) if passes[i]]
        if progress:
            progress(min(begin + FACTS_AT_ONCE, len(facts)), len(facts), gate)
        if limit and len(kept) >= limit:
            break
    return kept[:limit]


def eligible(model: Model, facts: Sequence[Fact]) -> list[bool]:
    """For each fact, whether `target_true` is likelier than `target_new` after the prompt.

    Raises:
        FactError: a fact lacks one of the two, so there is nothing to compare.
    """
    pairs: list[tuple[str, str]] = []
    for fact in facts:
        for name, answer in (("target_true", fact.target_true), ("target_new", fact.target_new)):
            if answer is None:
                raise FactError(f"The fact {fact.id} ({fact.text!r}) has no {name}; eligible compares both answers.")
            pairs.append((fact.text, answer))
    nll = answer_nll(model, pairs)
    return [true < new for true, new in zip(nll[::2], nll[1::2], strict=True)]
