"""Attack prefixes: text before the prompt that may bring an overwritten answer back (Xie et al. 2025, "superficial editing").

    attack wiki         "Colosseum: an article. Colosseum was built in the age of Vespasian. The Colosseum is in the city of"
    attack repeat       "Colosseum. Colosseum. Colosseum. The Colosseum is in the city of"
    attack question     "Question: what is said about Colosseum, The Colosseum is in the city of what? Answer: The Colosseum is ..."
    attack few-shot     "The Louvre is in the city of Paris. The Prado is in the city of Madrid. The Colosseum is in the city of"
    attack not-new      "It is not true that The Colosseum is in the city of Oslo. The Colosseum is in the city of"

The first three are of the kinds used there (an encyclopedia's sentence, repetition, a question); sentences about the subject and
the examples of the relation are facts of a pool, told in its own prompts. The last is the negation query of Liu et al. (2025), who
report that edits collapse under it; it denies what the model says now, which is the new answer of an edited subject and the own
answer of a control that was never edited. No text but the prompt itself says the answer that is looked for: a sentence that does is
left out, and where the subject's own name says it the attack is not made (NaN).

Xie et al. chose prompts on which attacks worked; here every pair is attacked, and the controls are attacked alike.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from palimpsest.edit.settings import whole
from palimpsest.erase.residue.advantage import Asked, advantages
from palimpsest.erase.residue.pair import SAME_ANSWER, Pair
from palimpsest.erase.residue.readout import Column, Table
from palimpsest.errors import SettingError, did_you_mean
from palimpsest.evaluate.words import contains
from palimpsest.facts import Fact
from palimpsest.model import Model

KINDS = ("wiki", "repeat", "question", "few-shot", "not-new")


@dataclass(frozen=True)
class Attacks:
    """The readout: the advantage of the whole answer at the final output, after each kind of prefix.

    Attributes:
        pool: facts with true answers, of which sentences are made: about the subject, and examples of its relation.
        kinds: of `KINDS`.
        examples: at most so many in "few-shot".
        sentences: at most so many about the subject in "wiki".
        repeats: of the subject in "repeat".
    """

    pool: tuple[Fact, ...] = field(default=(), repr=False)
    kinds: tuple[str, ...] = KINDS
    examples: int = 4
    sentences: int = 3
    repeats: int = 3
    name: str = "attack"

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise SettingError(f"There is no attack {kind!r}.{did_you_mean(kind, KINDS)}")
        if not self.kinds:
            raise SettingError(
                f"The readout needs at least one kind of attack, got none; choose of {', '.join(KINDS)}."
            )
        for name in ("examples", "sentences", "repeats"):
            whole("The attack readout", name, getattr(self, name), 1)

    def fit(self, model: Model, pairs: Sequence[Pair]) -> "Attacks":
        """Nothing is fitted."""
        return self

    def read(self, model: Model, pairs: Sequence[Pair]) -> Table:
        """The advantage of each pair's answer after each attack."""
        made = [self.text(kind, pair) for pair in pairs for kind in self.kinds]
        owners = [pair for pair in pairs for _ in self.kinds]
        asked = [
            None if text is None else Asked(text, pair.answer, pair.others)
            for text, pair in zip(made, owners, strict=True)
        ]
        scores = advantages(model, asked).reshape(len(pairs), len(self.kinds))
        return Table(tuple(Column(self.name, f"attack {kind}") for kind in self.kinds), np.asarray(scores))

    def text(self, kind: str, pair: Pair) -> str | None:
        """The prompt of a pair with an attack before it; None where there is nothing to make it of, or it would say the answer."""
        makers: dict[str, Callable[[Pair], str]] = {
            "wiki": self._wiki,
            "repeat": lambda one: f"{one.fact.subject}. " * self.repeats,
            "question": _question,
            "few-shot": self._few_shot,
            "not-new": _not_new,
        }
        before = makers[kind](pair)
        return f"{before}{pair.fact.text}" if before and not says(before, pair) else None

    def _wiki(self, pair: Pair) -> str:
        """A heading and what the pool says of the subject in other relations."""
        own = [fact for fact in self.pool if fact.subject == pair.fact.subject and fact.relation != pair.fact.relation]
        sentences = _told(own, pair, self.sentences)
        return " ".join([f"{pair.fact.subject}: an article about {pair.fact.subject}.", *sentences, ""])

    def _few_shot(self, pair: Pair) -> str:
        """Other subjects of the relation with their answers, first those whose answer is not compared with."""
        near = [fact for fact in self.pool if fact.relation == pair.fact.relation and fact.subject != pair.fact.subject]
        near.sort(key=lambda fact: fact.target_true in pair.others)  # stable: else in the order of the pool
        return " ".join([*_told(near, pair, self.examples), ""]) if near else ""


def says(text: str, pair: Pair) -> bool:
    """Whether a text says the answer that is looked for, or another name of it, also as the beginning of a word ("Parisian")."""
    names = [pair.answer]
    if pair.fact.target_true == pair.answer:
        names += pair.fact.answer_aliases
    return any(re.search(rf"(?<!\w){re.escape(name)}", text, re.IGNORECASE) or contains(text, name) for name in names)


def _told(facts: Iterable[Fact], pair: Pair, most: int) -> list[str]:
    """Facts as sentences, without those that say the answer looked for, or that repeat an answer told already."""
    told: dict[str, str] = {}
    for fact in facts:
        sentence = f"{fact.text} {fact.target_true}."
        if fact.target_true is not None and fact.target_true not in told and not says(sentence, pair):
            told[fact.target_true] = sentence
        if len(told) == most:
            break
    return list(told.values())


def _question(pair: Pair) -> str:
    return f"Question: what is said about {pair.fact.subject}, {pair.fact.text} what? Answer: "


def _not_new(pair: Pair) -> str:
    """The denial of what the model says now."""
    now = pair.fact.target_true if pair.group == SAME_ANSWER else pair.fact.target_new
    return "" if now is None else f"It is not true that {pair.fact.text} {now}. "
