"""Free text about the subject of an edit: is it fluent, and does it sound like texts about the new answer?

The model continues the fact's generation prompts (the first three that differ), each token drawn from the 5 likeliest, seeded.

    ge   generation entropy     mean over texts of (2/3 H_2 + 4/3 H_3) / 2, where H_n = - sum_g f(g) log2 f(g) is the entropy in
                                bits of the text's runs g of n words, f(g) being the share of g among them
    rs   reference similarity   cosine of the TF-IDF vectors of all texts joined and of the reference texts about o* joined

A text that repeats itself has few different runs of words and a low ge; that is what a high one rules out, and all that it
does: noise has the highest. Two texts of unlike length cannot be compared: log2 of the number of runs bounds H_n. Published
tables show 100 ge, of texts of 100 tokens with the prompt's counted (Meng et al. 2022, section 3.4); here 100 are new.

What is not the published script's: words are runs of letters and digits, or single other signs, not those of NLTK. The TF-IDF
weights come from the reference texts at hand, not from the published vocabulary, and the reference texts are the user's own,

    Fluency(references={"Rome": ["Rome is the capital of Italy ...", ...]})       or the path of such a JSON file

or, by default, the paragraphs of the shipped English text that name o* and what the shipped facts say of subjects whose answer
o* really is. Values of rs can be compared between runs with the same references only, and never with published ones. Where
there is no reference text about o*, there is no rs.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from math import log2
from os import PathLike
from pathlib import Path

from palimpsest.errors import InputError
from palimpsest.evaluate.asks import Ask, Written
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import mean, new_answer
from palimpsest.evaluate.tfidf import TfIdf
from palimpsest.facts import read_facts, shipped_text
from palimpsest.facts.case import Case

WEIGHTS = {2: 2 / 3, 3: 4 / 3}
PROMPTS = 3
_WORD = re.compile(r"\w+|[^\w\s]")

References = Mapping[str, Sequence[str]]


class Fluency:
    """The suite, for facts with generation prompts.

    Args:
        references: answer to texts about it, or a JSON file of that; None for what comes with the package.
        tokens: new ones in each text.
        top_k: from how many of the likeliest each is drawn.
        seed: of the drawing.

    Raises:
        InputError: the references are not texts by answer, or their file cannot be read.
    """

    metrics = {
        "ge": Metric("entropy of the text's runs of two and three words", True, unit="bits"),
        "rs": Metric("TF-IDF cosine with reference texts about the new answer (own vectors)", True),
    }

    def __init__(
        self,
        references: References | str | PathLike[str] | None = None,
        *,
        tokens: int = 100,
        top_k: int = 5,
        seed: int = 0,
    ) -> None:
        self.tokens, self.top_k, self.seed = tokens, top_k, seed
        self._given = None if references is None else _checked(references)
        # a run with other texts or references is another run; its plan knows the suite by its name
        unusual = [self._given, tokens, top_k, seed]
        digest = hashlib.sha256(json.dumps(unusual, sort_keys=True).encode()).hexdigest()[:8]
        self.name = "fluency" if unusual == [None, 100, 5, 0] else f"fluency-{digest}"

    def asks(self, case: Case) -> Sequence[Ask]:
        """One text for each generation prompt."""
        return self._asked(case)

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """Both metrics; none without generation prompts."""
        texts = [after.written(ask) for ask in self._asked(case)]
        about = self.references_of(new_answer(case.fact))
        return {
            "ge": mean([generation_entropy(text) for text in texts]),
            "rs": self._vectors.cosine(" ".join(texts), " ".join(about)) if texts and about else None,
        }

    def written(self, case: Case, answers: Answers) -> dict[str, object]:
        """What people rate: the new fact as a sentence, and each prompt's text."""
        fact = case.fact
        texts = {ask.text: answers.written(ask) for ask in self._asked(case)}
        return {"statement": f"{fact.text} {new_answer(fact)}.", "texts": texts}

    def references_of(self, answer: str) -> tuple[str, ...]:
        """The texts about an answer; none where nothing is known of it."""
        if self._given is not None:
            return tuple(self._given.get(answer, ()))
        named = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)")
        return tuple(text for text in self._paragraphs if named.search(text)) + tuple(self._sentences.get(answer, ()))

    def _asked(self, case: Case) -> list[Written]:
        prompts = list(dict.fromkeys(probe.prompt for probe in case.fact.generation))[:PROMPTS]
        return [Written(prompt, self.tokens, self.top_k, self.seed) for prompt in prompts]

    @cached_property
    def _vectors(self) -> TfIdf:
        if self._given is not None:
            return TfIdf.of(text for texts in self._given.values() for text in texts)
        return TfIdf.of([*self._paragraphs, *(text for texts in self._sentences.values() for text in texts)])

    @cached_property
    def _paragraphs(self) -> tuple[str, ...]:
        return tuple(part for part in shipped_text().split("\n\n") if part.strip())

    @cached_property
    def _sentences(self) -> dict[str, list[str]]:
        """Answer to what the shipped facts say of subjects whose answer it really is."""
        said: dict[str, list[str]] = {}
        for fact in read_facts("shipped"):
            if fact.target_true is not None:
                sentences = [f"{wording} {fact.target_true}." for wording in fact.wordings]
                said.setdefault(fact.target_true, []).append(" ".join(sentences))
        return said


def generation_entropy(text: str) -> float:
    """(2/3 H_2 + 4/3 H_3) / 2 of one text, in bits; a text without a run of n words has H_n = 0.

    >>> generation_entropy("a b c d")      # three pairs, two triples: (2/3 log2 3 + 4/3 log2 2) / 2
    1.1949875002403856
    >>> generation_entropy("no no no no no")
    0.0
    """
    words = _WORD.findall(text)
    return (
        sum(
            weight * _entropy([tuple(words[i : i + n]) for i in range(len(words) - n + 1)])
            for n, weight in WEIGHTS.items()
        )
        / 2
    )


def _entropy(runs: Sequence[tuple[str, ...]]) -> float:
    shares = [times / len(runs) for times in Counter(runs).values()]
    return -sum(share * log2(share) for share in shares) + 0.0  # and not -0.0 of a single run


def _checked(references: References | str | PathLike[str]) -> dict[str, list[str]]:
    """References as plain data."""
    where = "The references"
    found: object = references
    if isinstance(references, str | PathLike):
        where = f"The file of references {references}"
        try:
            found = json.loads(Path(references).read_bytes())
        except OSError as error:
            raise InputError(f"{where} cannot be read: {error.strerror or error}; name a JSON file.") from None
        except ValueError as error:
            raise InputError(f'{where} is not JSON ({error}); write it as {{"Rome": ["text", "text"]}}.') from None
    if not isinstance(found, Mapping) or not found:
        raise InputError(f'{where} must be an object of lists of texts, got {found!r:.60}; write {{"Rome": ["text"]}}.')
    for answer, texts in found.items():
        if isinstance(texts, str) or not isinstance(texts, Sequence) or not all(isinstance(t, str) for t in texts):
            raise InputError(
                f"{where} must have a list of texts for {answer!r}, got {texts!r:.60}; write it as a list."
            )
    return {str(answer): list(texts) for answer, texts in found.items()}
