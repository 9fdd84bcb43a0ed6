"""Blind rating: which of two editors' texts do people find more consistent with the new fact, and which more fluent?

    study = make_study(read_written("rome/"), read_written("memit/"), names=("rome", "memit"))
    # people answer on the page that palimpsest.report.rating_page(study) makes
    for preference in score(study, [read_choices("ann.json"), read_choices("ben.json")]):
        print(preference.question, preference.odds)

For one prompt a rater sees the texts of both editors side by side, without names and in an order drawn anew for each pair (so Meng
et al. 2022 had people choose). Which side is whose stands in the key, a file of its own. With A, B and T
judgements for the first editor, for the second and for neither,

    share = A / (A + B),        odds = A / B,        ties = T / (A + B + T).

Judgements of one fact go together and so do those of one rater. The interval therefore draws facts and raters anew, each for
itself, and weighs a judgement by (times its fact was drawn) x (times its rater was drawn) (Owen 2007, the pigeonhole bootstrap).
The test counts facts, not judgements: a fact is for the editor its judgements prefer more often, and p is the exact two-sided
binomial one of that many heads.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from scipy import stats

from palimpsest.errors import InputError, RecordError
from palimpsest.runs import load_samples
from palimpsest.statistics import Estimate, proportion
from palimpsest.statistics.checks import tail_rank

QUESTIONS = {
    "consistent": "Which text is more consistent with the statement?",
    "fluent": "Which text is more fluent?",
}
CHOICES = ("left", "right", "tie")
_FORMAT = 1


@dataclass(frozen=True)
class Text:
    """What one editor made a model write.

    Attributes:
        fact: id of the fact that was edited.
        subject: of the fact, its cluster.
        statement: the new fact as a sentence, which the text should be consistent with.
        prompt: what the text continues.
        text: what was written, without the prompt.
    """

    fact: str
    subject: str
    statement: str
    prompt: str
    text: str


@dataclass(frozen=True)
class Pair:
    """Two texts for one prompt as a rater sees them; `first_is_left` says where the first editor's stands."""

    id: str
    fact: str
    subject: str
    statement: str
    prompt: str
    left: str
    right: str
    first_is_left: bool


@dataclass(frozen=True)
class Study:
    """Pairs in the order in which they are shown.

    Attributes:
        names: of the two editors, the first and the second.
        pairs: what is shown.
        identical: prompts left out because both editors wrote the same.
        unmatched: prompts that only one of them has.
    """

    names: tuple[str, str]
    pairs: tuple[Pair, ...]
    identical: int = 0
    unmatched: int = 0

    @property
    def id(self) -> str:
        """A hash of what is shown, which says nothing of sides; choices name it."""
        shown = [(pair.id, pair.statement, pair.prompt, pair.left, pair.right) for pair in self.pairs]
        return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """The key; whoever rates must not see it."""
        return {"format": _FORMAT, "study": self.id} | asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any], where: str = "The key") -> "Study":
        """The study of a key; raises `RecordError` where it is none, or was changed."""
        try:
            pairs = tuple(Pair(**pair) for pair in record["pairs"])
            first, second = record["names"]
            study = cls((first, second), pairs, record["identical"], record["unmatched"])
            same = record["study"] == study.id and record["format"] == _FORMAT
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(
                f"{where} is no key of a rating page ({error}); name the folder that rate made."
            ) from None
        if not same:
            raise RecordError(f"{where} was changed since the page was made; restore it, or make the page again.")
        return study


@dataclass(frozen=True)
class Judgements:
    """What one rater chose: pair id -> question -> "left", "right" or "tie"."""

    rater: str
    study: str
    choices: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Preference:
    """What all raters together say to one question.

    Attributes:
        question: "consistent" or "fluent".
        first, second, ties: judgements for either editor and for neither.
        facts, raters: how many there were.
        share: of the first editor among judgements that are no ties.
        odds: share / (1 - share), 1 where neither is preferred.
        facts_first, facts_second: facts whose judgements prefer the one, or the other.
        p: exact two-sided binomial p of those facts.
    """

    question: str
    first: int
    second: int
    ties: int
    facts: int
    raters: int
    share: Estimate
    odds: Estimate
    facts_first: int
    facts_second: int
    p: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**self.__dict__, "share": self.share.to_json(), "odds": self.odds.to_json()}


def read_written(folder: str | PathLike[str]) -> list[Text]:
    """The texts a run of `evaluate` with a suite that keeps them (fluency) wrote.

    Raises:
        RecordError: there is no such run.
        InputError: no record of it holds texts.
    """
    found = []
    for record in load_samples(Path(folder)):
        written = record.get("written")
        if "error" in record or not written:
            continue
        subject = str(record.get("subject") or record["id"])
        for prompt, text in written["texts"].items():
            found.append(Text(str(record["id"]), subject, written["statement"], prompt, text))
    if not found:
        raise InputError(
            f"{folder} holds no texts to rate; run palimpsest evaluate with --suite fluency and name its --out folder."
        )
    return found


def make_study(
    first: Sequence[Text],
    second: Sequence[Text],
    *,
    names: tuple[str, str] = ("first", "second"),
    limit: int | None = None,
    seed: int = 0,
) -> Study:
    """Pairs of texts for the same fact and prompt, in drawn order and on drawn sides (each editor left in half of them).

    Args:
        first, second: of the two editors.
        names: theirs; never shown on the page.
        limit: at most so many pairs, one fact's after another's only when every fact has one.
        seed: of order and sides; who knows it can tell the sides.

    Raises:
        InputError: there is no pair of differing texts, or the names are the same.
    """
    if names[0] == names[1]:
        raise InputError(f"Two editors need two names, got {names[0]!r} twice; rename one folder.")
    others = {(text.fact, text.prompt): text for text in second}
    own = {(text.fact, text.prompt): text for text in first}
    both = [key for key in own if key in others]
    differing = [key for key in both if own[key].text.strip() != others[key].text.strip()]
    for key in both:
        if own[key].statement != others[key].statement:
            raise InputError(
                f"The fact {key[0]!r} says {own[key].statement!r} in one run and {others[key].statement!r} in the other; "
                f"rate runs over the same facts."
            )
    if not differing:
        raise InputError(
            f"There is nothing to rate: {len(both)} prompts are in both runs, and none has two different texts."
        )
    draw = Random(seed)
    draw.shuffle(differing)
    chosen = _facts_in_turn(differing)[:limit]
    draw.shuffle(chosen)
    sides = [place < len(chosen) / 2 for place in range(len(chosen))]
    draw.shuffle(sides)
    pairs = tuple(
        _pair(str(number), own[key], others[key], left)
        for number, (key, left) in enumerate(zip(chosen, sides, strict=True), start=1)
    )
    unmatched = len(own) + len(others) - 2 * len(both)
    return Study(names, pairs, len(both) - len(differing), unmatched)


def _facts_in_turn(keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The first prompt of every fact, then the second of every fact, and so on."""
    seen: Counter[str] = Counter()
    rounds = []
    for fact, _ in keys:
        rounds.append(seen[fact])
        seen[fact] += 1
    return [keys[i] for i in sorted(range(len(keys)), key=lambda i: rounds[i])]


def _pair(number: str, first: Text, second: Text, first_is_left: bool) -> Pair:
    left, right = (first, second) if first_is_left else (second, first)
    return Pair(number, first.fact, first.subject, first.statement, first.prompt, left.text, right.text, first_is_left)


def read_choices(path: str | PathLike[str]) -> Judgements:
    """The file that the page saves.

    Raises:
        RecordError: it cannot be read, or holds something else.
    """
    try:
        record = json.loads(Path(path).read_bytes())
        choices = record["choices"]
        judged = Judgements(str(record["rater"]).strip() or Path(path).stem, record["study"], choices)
        wrong = [c for own in choices.values() for q, c in own.items() if q not in QUESTIONS or c not in CHOICES]
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}; name a file the page saved.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RecordError(f"{path} holds no choices of a rating page; name a file the page saved.") from None
    if wrong:
        raise RecordError(f"{path} holds the choice {wrong[0]!r}, expected one of {', '.join(CHOICES)}; restore it.")
    return judged


def score(study: Study, judged: Sequence[Judgements], *, resamples: int = 2000, seed: int = 0) -> list[Preference]:
    """The preference for each question that was answered.

    Args:
        study: from the key.
        judged: one a rater.
        resamples, seed: of the bootstrap.

    Raises:
        InputError: nobody chose anything, choices are another study's, or a rater comes twice.
    """
    _check(study, judged)
    found = []
    for question in QUESTIONS:
        rows = list(_rows(study, judged, question))
        if rows:
            found.append(_preference(question, rows, resamples, seed))
    if not found:
        raise InputError("Nobody chose anything yet; answer on the page and save the choices.")
    return found


def _check(study: Study, judged: Sequence[Judgements]) -> None:
    known = {pair.id for pair in study.pairs}
    raters: set[str] = set()
    for own in judged:
        strange = [pair for pair in own.choices if pair not in known]
        if own.study != study.id or strange:
            raise InputError(
                f"The choices of {own.rater!r} are of another page ({own.study}, expected {study.id}); score them with its key."
            )
        if own.rater in raters:
            raise InputError(
                f"The rater {own.rater!r} comes twice; give one file a rater, or other names to those who share one."
            )
        raters.add(own.rater)


def _rows(study: Study, judged: Sequence[Judgements], question: str) -> Iterable[tuple[str, str, int]]:
    """(subject, rater, +1 for the first editor, -1 for the second, 0 for a tie) of every judgement."""
    for own in judged:
        for pair in study.pairs:
            choice = own.choices.get(pair.id, {}).get(question)
            if choice is not None:
                sign = 0 if choice == "tie" else 1 if (choice == "left") == pair.first_is_left else -1
                yield pair.subject, own.rater, sign


def _preference(question: str, rows: Sequence[tuple[str, str, int]], resamples: int, seed: int) -> Preference:
    signs = np.array([sign for _, _, sign in rows])
    first, second, ties = (int((signs == wanted).sum()) for wanted in (1, -1, 0))
    net: dict[str, int] = {}
    for subject, _, sign in rows:
        net[subject] = net.get(subject, 0) + sign
    facts_first, facts_second = (sum(sign * total > 0 for total in net.values()) for sign in (1, -1))
    share = _share(rows, signs, resamples, seed)
    decided = facts_first + facts_second
    return Preference(
        question=question,
        first=first,
        second=second,
        ties=ties,
        facts=len(net),
        raters=len({rater for _, rater, _ in rows}),
        share=share,
        odds=Estimate(
            **{**share.__dict__, **{end: _odds(getattr(share, end)) for end in ("value", "low", "high")}, "unit": ""}
        ),
        facts_first=facts_first,
        facts_second=facts_second,
        p=float(stats.binomtest(facts_first, decided, 0.5).pvalue) if decided else 1.0,
    )


def _share(rows: Sequence[tuple[str, str, int]], signs: np.ndarray, resamples: int, seed: int) -> Estimate:
    """first / (first + second) with facts and raters drawn anew; ties weigh nothing."""
    nan = float("nan")
    n = int((signs != 0).sum())
    subjects, raters = (sorted({row[i] for row in rows}) for i in (0, 1))
    if not n:
        return Estimate(nan, nan, nan, 0, len(subjects), method="no judgement but ties")
    value = float((signs == 1).sum() / n)
    if value in (0.0, 1.0):  # every resample is the same; the facts are so many trials
        bound = proportion(round(value * len(subjects)), len(subjects))
        return Estimate(value, bound.low, bound.high, n, len(subjects), method=f"{bound.method}, over facts")
    at = np.array([(subjects.index(subject), raters.index(rater)) for subject, rater, _ in rows])
    draw = np.random.default_rng(seed)

    def times(count: int) -> np.ndarray:
        """How often each of `count` is drawn in each resample; a single one always is once, having no spread to show."""
        return draw.multinomial(count, np.full(count, 1 / count), size=resamples)

    weights = times(len(subjects))[:, at[:, 0]] * times(len(raters))[:, at[:, 1]]
    wins, losses = weights @ (signs == 1), weights @ (signs == -1)
    kept = wins + losses > 0
    drawn = np.sort(wins[kept] / (wins + losses)[kept])
    rank = max(1, tail_rank(0.95, resamples) * drawn.size // resamples)
    low, high = min(float(drawn[rank - 1]), value), max(float(drawn[-rank]), value)
    method = f"share without ties, pigeonhole bootstrap of {len(subjects)} facts and {len(raters)} raters"
    return Estimate(value, low, high, n, len(subjects), method=f"{method}, {drawn.size} resamples, seed {seed}")


def _odds(share: float) -> float:
    return float("inf") if share == 1 else share / (1 - share)
