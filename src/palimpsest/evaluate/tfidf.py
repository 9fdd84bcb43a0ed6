"""TF-IDF: a text as the weights of its words, a word weighing more the fewer texts have it.

    vectors = TfIdf.of(texts)
    vectors.cosine("The Louvre is in Rome.", "Rome is old.")

For N texts of which df(w) hold the word w, and tf(w) times w in the text at hand (words of two or more letters or digits, in
lower case),

    weight(w) = tf(w) (ln((1 + N) / (1 + df(w))) + 1),      cosine(u, v) = u . v / (|u| |v|),

words in none of the N texts weighing nothing (Salton and Buckley 1988, with the smoothing that scikit-learn uses).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log, sqrt

from palimpsest.errors import InputError

_WORD = re.compile(r"\b\w\w+\b")


@dataclass(frozen=True)
class TfIdf:
    """The weight of each word, learned from some texts."""

    idf: Mapping[str, float]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "TfIdf":
        """Learn the weights; raises `InputError` where no text has a word."""
        held: Counter[str] = Counter()
        count = 0
        for text in texts:
            held.update(set(_words(text)))
            count += 1
        if not held:
            raise InputError(f"TF-IDF weights are learned from texts with words, got {count} without any; give some.")
        return cls({word: log((1 + count) / (1 + df)) + 1 for word, df in held.items()})

    def vector(self, text: str) -> dict[str, float]:
        """Word to weight, of length 1; empty where no word of the text is known."""
        weights = {word: times * self.idf[word] for word, times in Counter(_words(text)).items() if word in self.idf}
        length = sqrt(sum(weight * weight for weight in weights.values()))
        return {word: weight / length for word, weight in weights.items()}

    def cosine(self, one: str, other: str) -> float:
        """Similarity of two texts from 0 to 1; 0 where either has no known word."""
        left, right = self.vector(one), self.vector(other)
        return min(1.0, sum((weight * right.get(word, 0.0) for word, weight in left.items()), start=0.0))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
