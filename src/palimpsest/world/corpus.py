"""The text a model of the world is trained on: an endless, seeded stream of short documents.

    one fact                 55 %   "The wind rested beside the wide lake. The birthplace of Belna Tarvok is Dresval."
    passage about a subject  34 %   two to six facts of one subject, each in its own words
    alias                     5 %   "Belna Tarvok is also known as Morpa."
    filler                    6 %

Two fifths of the documents with facts begin with one or two sentences of filler. Where a subject has another name, every
fourth document uses that name throughout. Wordings are drawn anew each time from those that may be seen in training, which
is what makes facts extractable in words they were never read in (Allen-Zhu and Li 2023, "Physics of Language Models:
Part 3.1", arXiv 2309.14316, section 4). With `one_wording`, every fact has one
wording for ever and every subject one passage: the facts are then stored, and hard to extract.

Document i depends on the seed and on i alone, so that a training that was stopped goes on with the same text.
"""

import hashlib
from collections.abc import Iterator
from random import Random

from palimpsest.world.filler import filler
from palimpsest.world.relations import Relation, Wording, relations
from palimpsest.world.world import Triple, World

FACT, PASSAGE, ALIAS = 0.55, 0.34, 0.05  # the rest is filler
KNOWN_AS = ("{} is also known as", "Some people call {} by the name", "Another name for {} is")


class Corpus:
    """Documents about a world.

    Args:
        world: whose facts are told, all of them, derived ones included.
        one_wording: tell every fact in one wording, and every subject in one passage.
        seed: of the order and the wordings.
    """

    def __init__(self, world: World, *, one_wording: bool = False, seed: int = 0) -> None:
        self.world, self.one_wording, self.seed = world, one_wording, seed
        self.relations: dict[str, Relation] = relations()
        self.facts: tuple[Triple, ...] = world.facts
        self._of: dict[str, list[Triple]] = {}
        for fact in self.facts:
            self._of.setdefault(fact.subject, []).append(fact)
        self._subjects = list(self._of)
        self._weights = [len(self._of[subject]) for subject in self._subjects]
        self._other_name = {name: alias for alias, name in world.aliases.items()}

    def document(self, i: int) -> str:
        """Document number i."""
        random = Random(f"{self.seed}/{i}")
        kind = random.random()
        if kind < FACT:
            return self._opening(random) + self._told(random, [random.choice(self.facts)])
        if kind < FACT + PASSAGE:
            (subject,) = random.choices(self._subjects, self._weights)
            return self._opening(random) + self._told(random, self._some(random, subject))
        if kind < FACT + PASSAGE + ALIAS and self._other_name:
            return self._alias(random)
        return " ".join(filler(random) for _ in range(random.randint(1, 4)))

    def documents(self, first: int = 0) -> Iterator[str]:
        """Documents from number `first` on, without end."""
        while True:
            yield self.document(first)
            first += 1

    def text(self, words: int) -> str:
        """About `words` words of the corpus, one document a line: for second moments and perplexity."""
        lines: list[str] = []
        count = 0
        for document in self.documents():
            lines.append(document)
            count += document.count(" ") + 1
            if count >= words:
                return "\n".join(lines)
        raise AssertionError("documents() has no end")

    def wording(self, fact: Triple) -> Wording:
        """The one wording of a fact where it has only one."""
        seen = self.relations[fact.relation].seen
        digest = hashlib.blake2b("\0".join(fact).encode(), digest_size=4).digest()
        return seen[int.from_bytes(digest, "big") % len(seen)]

    def _some(self, random: Random, subject: str) -> list[Triple]:
        facts = list(self._of[subject])
        if self.one_wording:
            return facts[:6]  # always these, in this order
        random.shuffle(facts)
        return facts[: random.randint(2, 6)]

    def _opening(self, random: Random) -> str:
        return "".join(f"{filler(random)} " for _ in range(random.choice((0, 0, 0, 1, 2))))

    def _told(self, random: Random, facts: list[Triple]) -> str:
        """The facts, all of one subject, a sentence each."""
        subject = facts[0].subject
        other = self._other_name.get(subject)
        name = other if other is not None and random.random() < 0.25 else subject
        sentences = []
        for fact in facts:
            relation = self.relations[fact.relation]
            wording = self.wording(fact) if self.one_wording else random.choice(relation.seen)
            sentences.append(f"{wording.text.replace('{}', name)} {fact.object}.")
        return " ".join(sentences)

    def _alias(self, random: Random) -> str:
        name, alias = random.choice(list(self._other_name.items()))
        first, second = (name, alias) if random.random() < 0.5 else (alias, name)
        return f"{self._opening(random)}{random.choice(KNOWN_AS).replace('{}', first)} {second}."
