"""Made-up names: pronounceable, of several tokens, and told apart by their first three letters.

    city      Bel + no + dor                   first syllable, middle syllables, an ending that goes with the kind
    person    Tar + vi    Mel + ku + vok       two such words
    landmark  Rin + sa + thar Tower            one, and a common noun

First syllables are a consonant, a vowel and a consonant, so no one of them is how another begins. Within a kind each is
used once: the first token of a name is (nearly) enough to know it from all others of its kind, as scoring a first token
needs. No word is used twice anywhere, no name is how another begins, and none is a word of the wordings.
"""

import itertools
from collections.abc import Iterable
from functools import cache
from random import Random

from palimpsest.errors import SettingError, did_you_mean
from palimpsest.world.relations import relations

CONSONANTS, VOWELS, CODAS = "bdfghklmnprstv", "aeiou", "lnrsm"
AVOIDED_BEGINNINGS = frozenset({"hor", "kum", "pis", "pus"})
FIRST = tuple(
    syllable
    for syllable in map("".join, itertools.product(CONSONANTS, VOWELS, CODAS))
    if syllable not in AVOIDED_BEGINNINGS
)
MIDDLE = tuple(map("".join, itertools.product("bdgklmnrstvz", VOWELS)))
ENDINGS = {
    "city": ("dor", "vik", "mond", "sted", "mir", "gard"),
    "company": ("tron", "dex", "vax", "nox", "plex"),
    "country": ("nia", "via", "ria", "sia", "dia"),
    "currency": ("dun", "ket", "lin", "rak", "zel"),
    "landmark": ("gol", "thar", "wyn", "brek", "lok"),
    "language": ("nish", "rese", "vic", "dan", "kesh"),
    "person": ("vi", "nu", "lo", "dri", "mek", "bash", "to", "rin"),
}
LAST_ENDINGS = ("vok", "dal", "ros", "nek", "lund", "tam")
NOUNS = ("Tower", "Bridge", "Hall", "Palace", "Library", "Fountain", "Castle", "Temple")
KINDS = tuple(ENDINGS)  # of entities with made-up names

# what the syllables can spell by chance and is a name already, or a word
REAL_NAMES = frozenset(
    {
        *("bulgaria", "hungaria", "moldavia", "salvador", "sardinia", "tanzania", "tartaria", "tasmania"),
        *("karlo", "kendal", "marlo", "marto", "merlo", "pinto", "salvi", "sandri", "santo"),
        *("sandal", "vandal"),
    }
)


def random_name(kind: str, random: Random) -> str:
    """One made-up name, with no regard to any other.

    Raises:
        SettingError: names of this kind are not made up.
    """
    if kind not in ENDINGS:
        raise SettingError(f"There are no made-up names of the kind {kind!r}.{did_you_mean(kind, KINDS)}")
    if kind == "person":
        return f"{_word(random, ENDINGS[kind], (0, 1))} {_word(random, LAST_ENDINGS, (0, 1))}"
    if kind == "landmark":
        return f"{_word(random, ENDINGS[kind], (1, 2))} {random.choice(NOUNS)}"
    return _word(random, ENDINGS[kind], (1, 2))


def first_syllable(name: str) -> str:
    """The syllable by which names of one kind are told apart.

    >>> first_syllable("Belnodor")
    'Bel'
    """
    return name[:3]


class Names:
    """Names that fit together; each drawn one is remembered.

    Args:
        random: where chance comes from.
        taken: names in use already, by kind.
    """

    def __init__(self, random: Random, taken: Iterable[tuple[str, str]] = ()) -> None:
        self._random = random
        self._names: list[str] = []
        self._words: set[str] = set()
        self._syllables: set[tuple[str, str]] = set()
        for kind, name in taken:
            self._remember(kind, name)

    def draw(self, kind: str) -> str:
        """A name that no other is mistaken for.

        Raises:
            SettingError: names of this kind are not made up, or its first syllables are used up.
        """
        if sum(used == kind for used, _ in self._syllables) >= len(FIRST):
            raise SettingError(
                f"There are {len(FIRST)} names of the kind {kind!r} with different first syllables and all are used; "
                f"ask for fewer."
            )
        while True:
            name = random_name(kind, self._random)
            if self._fits(kind, name):
                self._remember(kind, name)
                return name

    def _fits(self, kind: str, name: str) -> bool:
        return (
            (kind, first_syllable(name)) not in self._syllables
            and self._words.isdisjoint(_own_words(name))
            and not any(name.startswith(other) or other.startswith(name) for other in self._names)
        )

    def _remember(self, kind: str, name: str) -> None:
        self._names.append(name)
        self._words.update(_own_words(name))
        self._syllables.add((kind, first_syllable(name)))


def _word(random: Random, endings: tuple[str, ...], middles: tuple[int, int]) -> str:
    """A capitalised word with `middles` (at least, at most) syllables between the first and the ending."""
    while True:
        count = random.randint(*middles)
        syllables = [random.choice(FIRST), *(random.choice(MIDDLE) for _ in range(count)), random.choice(endings)]
        word = "".join(syllables)
        if word not in REAL_NAMES and word not in _words_of_the_wordings():
            return word.capitalize()


def _own_words(name: str) -> list[str]:
    return [word for word in name.split() if word not in NOUNS]


@cache
def _words_of_the_wordings() -> frozenset[str]:
    return frozenset[str]().union(
        *(wording.words for relation in relations().values() for wording in relation.wordings)
    )
