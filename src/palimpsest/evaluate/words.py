"""Free text against an answer: "Rome, the capital of Italy." says "Rome".

Both become words: compatibility forms of characters are made one (NFKC), case goes, what is neither letter nor digit goes
("Xi'an" is "xian", but a dash or a slash parts words), and the articles a, an, the go (the normalisation of SQuAD's script,
Rajpurkar et al. 2016, and of Chinese or accented text nothing but that). Words are then compared whole: "Romes" does not say
"Rome".
"""

import re
import unicodedata
from collections.abc import Iterator

ARTICLES = frozenset(("a", "an", "the"))
_STOP = re.compile(r"[.!?;。！？](?=\s|$|[\"'”’)])|[。！？\n]")
_APART = re.compile(r"[\s\-‐-―/_,;:]+")


def words(text: str) -> tuple[str, ...]:
    """The words of a text, normalised."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    found = ("".join(c for c in part if unicodedata.category(c)[0] in "LNM") for part in _APART.split(plain))
    return tuple(word for word in found if word and word not in ARTICLES)


def contains(text: str, answer: str) -> bool:
    """Whether the words of `answer` stand in `text`, next to each other."""
    there, wanted = words(text), words(answer)
    if not wanted:
        return answer.strip() in text
    return any(there[i : i + len(wanted)] == wanted for i in range(len(there) - len(wanted) + 1))


def begins(text: str, answer: str) -> bool:
    """Whether `text` begins with the words of `answer`."""
    wanted = words(answer)
    return words(text)[: len(wanted)] == wanted if wanted else text.strip().startswith(answer.strip())


def equals(text: str, answer: str) -> bool:
    """Whether `text` up to a natural stop is the words of `answer` and no other.

    A stop is the end of a sentence or line, or of the text; every stop is tried, because "St. Louis." has two.
    """
    wanted = words(answer)
    return any((words(part) == wanted) if wanted else part.strip() == answer.strip() for part in _to_stops(text))


def _to_stops(text: str) -> Iterator[str]:
    for stop in _STOP.finditer(text):
        yield text[: stop.end()]
    yield text
