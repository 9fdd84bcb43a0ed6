"""Which facts a model knows: the gate before every experiment, because whatever follows an unknown fact is noise.

known       on at least two of the first three wordings (the prompt and two paraphrases) the likeliest next token is the
            first token of the answer or of one of its aliases; with fewer than three wordings, on all of them
eligible    the old answer is likelier than the new one after the prompt: the gate of the CounterFact scores
"""

from collections.abc import Sequence
from dataclasses import dataclass

from palimpsest.errors import FactError
from palimpsest.facts import Fact
from palimpsest.locate.answers import answer_nll, first_token, next_token_logits
from palimpsest.model import Model

WORDINGS, NEEDED = 3, 2
CHUNK = 256  # prompts asked at once


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
