"""Wordings as a readout: the old answer at the model's own output, under every way of asking that there is.

    prompt, paraphrase 1, 2, ...    the fact's own wordings
    prefix 1, 2, ...                the prompt after a sentence of plain text that no editor used as a context
    alias 1, 2, ...                 the prompt with another name of the subject (given by the caller); its only name where it has no
                                    other, so that a subject without one, as controls are, can be compared (of an edited fact
                                    not where the prompt is passed over)
    reversed                        the relation told from its other end, "Paris is the capital of"; here the *subject* is
                                    read, among others of the relation (given by the caller as templates with {answer})

    score = log p(answer | text) - mean over others of log p(other | text)        in nats, every token of an answer counted

Editors optimise the prompt, some of them after sampled contexts; they see no paraphrase and no reversal. Reversed wordings ask
in the direction in which models seldom generalise at all (Berglund et al. 2023, arXiv 2309.12288), so a low score there means
little unless the unedited model's is high: it stands beside it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from palimpsest.erase.residue.advantage import Asked, advantages
from palimpsest.erase.residue.pair import SAME_ANSWER, Pair
from palimpsest.erase.residue.pairs_of import OTHERS, drawn_order
from palimpsest.erase.residue.readout import Column, Table
from palimpsest.erase.residue.states import asked_as
from palimpsest.errors import InputError, SettingError
from palimpsest.facts import shipped_text
from palimpsest.model import Model

PARAPHRASES, PREFIXES = 8, 2
SENTENCE = re.compile(r"(?<=[.!?])\s+")
SHORT = range(20, 90)  # characters of a sentence that is put before a prompt


@dataclass(frozen=True)
class Wordings:
    """The readout.

    Attributes:
        paraphrases: how many at most.
        skip: so many of the first are passed over, and the prompt with them: those an editor may have been given. A readout of
            the others alone, under a name of its own, is one it did not optimise.
        prefixes: how many sentences of plain text are tried before the prompt.
        text: where these are drawn from; the shipped English when None.
        reversed: relation to a text with one {answer} that the subject follows.
        aliases: subject to other names of it; one name is one subject's alone.
        seed: of the draw of sentences and of other subjects.
    """

    paraphrases: int = PARAPHRASES
    prefixes: int = PREFIXES
    text: str | None = None
    reversed: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seed: int = 0
    skip: int = 0
    name: str = "wording"

    def __post_init__(self) -> None:
        for what, number in (("paraphrases", self.paraphrases), ("prefixes", self.prefixes), ("skip", self.skip)):
            if number < 0:
                raise SettingError(f"The number of {what} of wordings must be 0 or more, got {number}.")
        for relation, template in self.reversed.items():
            if template.count("{answer}") != 1:
                raise SettingError(
                    f"A reversed wording holds exactly one {{answer}}, got {template!r} for {relation!r}; "
                    f"write it as '{{answer}} is the capital of'."
                )
        owner: dict[str, str] = {}
        for subject, names in self.aliases.items():
            for alias in names:
                if owner.setdefault(alias, subject) != subject:
                    raise InputError(
                        f"The alias {alias!r} is given to two subjects, {owner[alias]!r} and {subject!r}; "
                        f"give it to one, for nobody could tell of whom it asks."
                    )

    def fit(self, model: Model, pairs: Sequence[Pair]) -> "WordingsReader":
        """Draw the sentences, and learn which subjects each relation has."""
        subjects: dict[str, list[str]] = {}
        owners: dict[str, str] = {}
        for pair in pairs:
            subjects.setdefault(pair.fact.relation, []).append(pair.fact.subject)
            if pair.group != SAME_ANSWER:
                owners[pair.of] = pair.fact.subject
        drawn = sentences(shipped_text() if self.text is None else self.text, self.prefixes, self.seed)
        ordered = {relation: tuple(sorted(set(own))) for relation, own in subjects.items()}
        return WordingsReader(self, drawn, ordered, owners)


@dataclass(frozen=True)
class WordingsReader:
    """Reads the final output."""

    settings: Wordings
    prefixes: tuple[str, ...]
    subjects: Mapping[str, tuple[str, ...]]
    owners: Mapping[str, str]

    def read(self, model: Model, pairs: Sequence[Pair]) -> Table:
        """A column for each path; NaN where a pair has no such wording or the model cannot read it."""
        by_pair = [self._asked(pair) for pair in pairs]
        flat = [own.get(path) for own in by_pair for path in self.paths]
        scores = advantages(model, [asked if asked and _readable(model, asked) else None for asked in flat])
        columns = tuple(Column(self.settings.name, path) for path in self.paths)
        return Table(columns, scores.reshape(len(pairs), len(columns)))

    @property
    def paths(self) -> list[str]:
        """Every way of asking, whether a pair has it or not."""
        most = max((len(names) for names in self.settings.aliases.values()), default=0)
        return [
            *([] if self.settings.skip else ["prompt"]),
            *(f"paraphrase {i + 1}" for i in range(self.settings.skip, self.settings.skip + self.settings.paraphrases)),
            *(f"prefix {i + 1}" for i in range(len(self.prefixes))),
            *(f"alias {i + 1}" for i in range(most)),
            *(["reversed"] if self.settings.reversed else []),
        ]

    def _asked(self, pair: Pair) -> dict[str, Asked]:
        fact = pair.fact
        texts = asked_as(fact, self.settings.skip + self.settings.paraphrases)
        texts |= {f"prefix {i + 1}": f"{sentence} {fact.text}" for i, sentence in enumerate(self.prefixes)}
        names = self.settings.aliases.get(fact.subject, ())
        if pair.group == SAME_ANSWER or not self.settings.skip:
            texts |= {path: fact.text for path in self.paths if path.startswith("alias ")}
        texts |= {f"alias {i + 1}": fact.prompt.replace("{}", name) for i, name in enumerate(names)}
        asked = {path: Asked(text, pair.answer, pair.others) for path, text in texts.items()}
        if template := self.settings.reversed.get(fact.relation):
            own = self.subjects.get(fact.relation, ())
            others = tuple(own[i] for i in drawn_order(len(own), f"reversed/{pair.of}", self.settings.seed))
            # at a control the edited subject would be the strongest rival, as the new answer is elsewhere
            others = tuple(name for name in others if name not in (fact.subject, self.owners.get(pair.of)))[:OTHERS]
            if others:
                asked["reversed"] = Asked(template.replace("{answer}", pair.answer), fact.subject, others)
        return asked


def sentences(text: str, count: int, seed: int) -> tuple[str, ...]:
    """Short whole sentences of a plain text, drawn.

    Raises:
        InputError: there are fewer than asked for.
    """
    found = sorted({s.strip() for line in text.splitlines() for s in SENTENCE.split(line) if len(s.strip()) in SHORT})
    found = [sentence for sentence in found if sentence[-1] in ".!?"]
    if len(found) < count:
        raise InputError(
            f"{count} prefixes were asked for, but the text has {len(found)} sentences of {SHORT.start} to "
            f"{SHORT.stop - 1} characters; "
            f"give more text."
        )
    return tuple(found[i] for i in drawn_order(len(found), "prefixes", seed)[:count])


def _readable(model: Model, asked: Asked) -> bool:
    """Whether the text fits the model with each answer; a token holds a byte at least, so most need no second look."""
    try:
        length = len(model.encode(asked.text)) + 1
        for answer in (asked.answer, *asked.others):
            if model.context is not None and length + len(answer.encode("utf-8", "replace")) > model.context:
                model.encode_answer(asked.text, answer)
    except InputError:
        return False
    return True
