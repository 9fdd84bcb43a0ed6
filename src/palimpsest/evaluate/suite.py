"""A suite: what to ask of a model for a case, and the metrics that follow from the answers.

    class Politeness:
        name = "politeness"
        metrics = {"thanks": Metric("share of answers that say thanks", higher_is_better=True)}

        def asks(self, case):
            return [Written(case.fact.text)]

        def measure(self, case, before, after):
            return {"thanks": float("thank" in after.written(Written(case.fact.text)))}

Another package adds one under the entry point group `palimpsest.suites`. Numbers are per case; means, intervals and paired
differences are made of them by `Scores`, alike for every suite.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from importlib import import_module, metadata
from typing import Any, Protocol, runtime_checkable

from palimpsest.errors import InputError, PalimpsestError, SettingError, did_you_mean
from palimpsest.evaluate.asks import (
    Answer,
    Ask,
    Likelihood,
    LikelihoodAnswer,
    NextToken,
    NextTokenAnswer,
    Passage,
    PassageAnswer,
    Written,
)
from palimpsest.facts.case import Case

SUITES = {
    "counterfact": "palimpsest.evaluate.suites.counterfact:CounterFact",
    "teacher_forcing": "palimpsest.evaluate.suites.teacher_forcing:TeacherForcing",
    "generation": "palimpsest.evaluate.suites.generation:Generation",
    "locality": "palimpsest.evaluate.suites.locality:Locality",
    "hase": "palimpsest.evaluate.suites.hase:Hase",
    "counterfact_plus": "palimpsest.evaluate.suites.counterfact_plus:CounterFactPlus",
    "fluency": "palimpsest.evaluate.suites.fluency:Fluency",
    "zsre": "palimpsest.evaluate.suites.zsre:Zsre",
    "knowedit": "palimpsest.evaluate.suites.knowedit:KnowEdit",
    "ripple": "palimpsest.evaluate.suites.ripple:Ripple",
    "mquake": "palimpsest.evaluate.suites.mquake:Mquake",
    "pararel": "palimpsest.evaluate.suites.pararel:ParaRel",
    "symmetry": "palimpsest.evaluate.suites.symmetry:Symmetry",
    "synonymy": "palimpsest.evaluate.suites.synonymy:Synonymy",
    "blimp": "palimpsest.evaluate.suites.blimp:Blimp",
    "text": "palimpsest.evaluate.suites.text:Text",
    "strata": "palimpsest.evaluate.suites.strata:Strata",
    "coverage": "palimpsest.evaluate.suites.coverage:Coverage",
}
GROUP = "palimpsest.suites"


@dataclass(frozen=True)
class Metric:
    """One number of a suite.

    Attributes:
        formula: in words or symbols, for tables and pages.
        higher_is_better: its direction; None where neither is (a control).
        unit: "nats", "bits", or "" for shares and scores.
        harmonic_of: where it is the harmonic mean of the means of other metrics, their names; then no case has it.
        needs_before: it compares with the unedited model, so an unedited model has none.
    """

    formula: str
    higher_is_better: bool | None
    unit: str = ""
    harmonic_of: tuple[str, ...] = ()
    needs_before: bool = False


class Answers:
    """The answers of one model to what was asked; raises `InputError` for what was not, and the error of what could not be."""

    def __init__(self, answers: Mapping[Ask, Answer | PalimpsestError]) -> None:
        self._answers = answers

    def __getitem__(self, ask: Ask) -> Answer:
        try:
            found = self._answers[ask]
        except KeyError:
            raise InputError(f"{ask!r:.200} was not asked of the model; a suite must list it in asks().") from None
        if isinstance(found, PalimpsestError):
            raise type(found)(str(found))  # a new one, because one error may be raised for several cases
        return found

    def nll(self, text: str, answer: str) -> float:
        """nll in nats a token."""
        return self.likelihood(text, answer).nll

    def likelihood(self, text: str, answer: str) -> LikelihoodAnswer:
        """nll and rightness of each token."""
        found = self[Likelihood(text, answer)]
        assert isinstance(found, LikelihoodAnswer)
        return found

    def next_token(self, text: str) -> NextTokenAnswer:
        """The next-token distribution."""
        found = self[NextToken(text)]
        assert isinstance(found, NextTokenAnswer)
        return found

    def written(self, ask: Written) -> str:
        """The new text only, never the prompt."""
        found = self[ask]
        assert isinstance(found, str)
        return found

    def passage(self, text: str) -> PassageAnswer:
        """Sum of nll and number of tokens."""
        found = self[Passage(text)]
        assert isinstance(found, PassageAnswer)
        return found


@runtime_checkable
class Suite(Protocol):
    """What every suite has."""

    name: str
    metrics: Mapping[str, Metric]

    def asks(self, case: Case) -> Sequence[Ask]:
        """Everything `measure` will look up, of the unedited and of the edited model alike.

        Raises:
            FactError: the case lacks what the suite needs.
        """
        ...

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """Each metric that is no harmonic mean, None where the case has nothing to measure it with.

        For the unedited model `before` and `after` are the same.
        """
        ...


def settings_of(suite: Suite) -> dict[str, Any]:
    """By the name of each suite, its settings that are not the usual ones, where it is a dataclass and so tells them."""
    found: dict[str, Any] = {}
    for one in getattr(suite, "suites", (suite,)):
        told = {own.name: (getattr(one, own.name), own) for own in fields(one) if own.init} if is_dataclass(one) else {}
        unusual = {name: value for name, (value, own) in told.items() if value != _usual(own)}
        if unusual:
            found[one.name] = unusual
    return found


def _usual(own: Field[Any]) -> Any:
    return own.default if own.default_factory is MISSING else own.default_factory()


class Together:
    """Several suites as one: the union of their asks and metrics.

    Raises:
        SettingError: two of them give one name to different metrics, or are one suite with different settings.
    """

    def __init__(self, suites: Sequence[Suite]) -> None:
        self.suites = tuple(suites)
        self.name = "+".join(suite.name for suite in suites)
        metrics: dict[str, Metric] = {}
        self.metrics: Mapping[str, Metric] = metrics
        settings: dict[str, Any] = {}
        for suite in suites:
            if settings.setdefault(suite.name, settings_of(suite)) != settings_of(suite):
                raise SettingError(
                    f"The suite {suite.name!r} stands twice with other settings; evaluate them one by one."
                )
            for name, metric in suite.metrics.items():
                if metrics.setdefault(name, metric) != metric:
                    raise SettingError(f"Two suites of {self.name} have a metric {name!r}; evaluate them one by one.")

    def asks(self, case: Case) -> Sequence[Ask]:
        """What any of them asks, each thing once."""
        return list(dict.fromkeys(ask for suite in self.suites for ask in suite.asks(case)))

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """What all of them measure."""
        return {name: value for suite in self.suites for name, value in suite.measure(case, before, after).items()}


def suite_names() -> list[str]:
    """Every suite at hand, ours and those of installed packages."""
    return sorted({*SUITES, *(point.name for point in metadata.entry_points(group=GROUP))})


def suite_of(wanted: str | Suite | Iterable[str | Suite]) -> Suite:
    """A suite by name ("counterfact", "counterfact+locality"), as it is, or several as one.

    Raises:
        SettingError: no suite has that name.
    """
    if isinstance(wanted, str):
        names = wanted.split("+")
        found = [_called(name.strip()) for name in names]
    elif isinstance(wanted, Suite):
        return wanted
    else:
        found = [suite_of(one) for one in wanted]
    if not found:
        raise SettingError(f"No suite was named; the suites are {', '.join(suite_names())}.")
    return found[0] if len(found) == 1 else Together(found)


def _called(name: str) -> Suite:
    target = SUITES.get(name)
    if target is not None:
        module, attribute = target.split(":")
        made = getattr(import_module(module), attribute)
    else:
        points = [point for point in metadata.entry_points(group=GROUP) if point.name == name]
        if not points:
            raise SettingError(f"There is no suite {name!r}.{did_you_mean(name, suite_names())}")
        made = points[0].load()
    suite: Suite = made()
    return suite
