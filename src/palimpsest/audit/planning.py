"""The plan of an audit: which layers, how many facts each experiment gets, and how long it will take, told before it starts.

Cost is counted per unit by each experiment (`Experiment.seconds`, from forward passes timed on this machine). What an audit does
beside its experiments is counted too: asking which facts are known, choosing the place, and the untrained model of the null audit.
Where the sum is more than the minutes there are, experiments give up facts, down to a least number each, so that n_i sqrt(c_i)
comes out alike for all, with n_i facts that cost c_i each: that makes the sum of 1 / n_i, and so of the squared widths of their
intervals, least for the minutes there are (Neyman 1934). A tenth of the minutes is held back, because a machine that does other
work is slower than it was when a pass was timed. What was given up is said in the plan, in the report, and in the n of every
estimate.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from palimpsest.audit.bench import Bench
from palimpsest.audit.experiment import Experiment
from palimpsest.audit.setting import Setting

LAYERS = 10  # centres of windows, about; every layer where there are no more than a few above
ALL_UP_TO = 12
LEAST_UNITS = {"smoke": 6, "standard": 30, "full": 30}  # an experiment is not cut below so many
STEP = 0.9  # what is left of an experiment's units in each round of cutting
RESERVE = 0.1  # of the minutes: an audit that was planned for 120 of 120 took 125 beside another program


@dataclass(frozen=True)
class Step:
    """One experiment of a plan.

    Attributes:
        experiment: its name.
        units: how many it measures.
        asked: how many there would be with time enough.
        seconds: what one is expected to cost.
    """

    experiment: str
    units: int
    asked: int
    seconds: float

    @property
    def minutes(self) -> float:
        """Of all units."""
        return self.units * self.seconds / 60


@dataclass(frozen=True)
class AuditPlan:
    """What an audit is going to do.

    Attributes:
        steps: experiment by experiment.
        minutes: what was allowed; None for as long as it takes.
        layers, n_layers: centres measured, and how many layers the model has.
        besides: minutes for what is no experiment: choosing facts and place, and the untrained model of the null audit.
    """

    steps: tuple[Step, ...]
    minutes: float | None
    layers: tuple[int, ...]
    n_layers: int
    besides: float = 0.0

    @property
    def estimated(self) -> float:
        """Minutes."""
        return self.besides + sum(step.minutes for step in self.steps)

    def of(self, experiments: Container[str]) -> "AuditPlan":
        """The part of the plan that is about these experiments; what is done besides stays that of the whole."""
        return replace(self, steps=tuple(step for step in self.steps if step.experiment in experiments))

    @property
    def cuts(self) -> dict[str, int]:
        """Experiments that get fewer facts than there are."""
        return {step.experiment: step.units for step in self.steps if step.units < step.asked}

    def left_out(self) -> list[str]:
        """What was given up, one sentence each."""
        told = []
        if len(self.layers) < self.n_layers:
            told.append(
                f"{self.n_layers - len(self.layers)} of {self.n_layers} layers are not measured as centres of windows."
            )
        told += [
            f"{step.experiment}: {step.units} of {step.asked} facts, to stay within {self.minutes:g} minutes."
            for step in self.steps
            if step.units < step.asked and self.minutes is not None
        ]
        if self.minutes is not None and self.estimated > self.minutes:
            told.append(
                f"About {self.estimated:.1f} minutes are expected, more than {self.minutes:g}: no experiment is cut further; "
                "name fewer with --only, or choose a smaller size."
            )
        return told

    def label(self, experiment: str) -> str:
        """Which experiment is running, and what is left after it."""
        names = [step.experiment for step in self.steps]
        at = names.index(experiment)
        left = sum(step.minutes for step in self.steps[at + 1 :])
        return f"{experiment} ({at + 1} of {len(names)}, then {left:.0f} min)"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "steps": [{**vars(step), "minutes": round(step.minutes, 2)} for step in self.steps],
            "minutes": self.minutes,
            "besides": round(self.besides, 2),
            "estimated": round(self.estimated, 1),
            "left_out": self.left_out(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any], layers: tuple[int, ...], n_layers: int) -> "AuditPlan":
        """The plan `to_json` wrote."""
        names = ("experiment", "units", "asked", "seconds")
        steps = tuple(Step(**{name: step[name] for name in names}) for step in record["steps"])
        return cls(steps, record["minutes"], layers, n_layers, record.get("besides", 0.0))


def layers_of(n_layers: int) -> tuple[int, ...]:
    """About ten layers, evenly spread, the first and the last among them; all of a model that has few."""
    if n_layers <= ALL_UP_TO:
        return tuple(range(n_layers))
    return tuple(sorted({round(i * (n_layers - 1) / (LAYERS - 1)) for i in range(LAYERS)}))


def planned(
    bench: Bench, experiments: Mapping[str, Experiment], minutes: float | None, besides: float = 0.0
) -> AuditPlan:
    """Cost every experiment and cut until the sum, with what is done besides, fits."""
    steps = []
    for name, made in experiments.items():
        units = len(made.units(bench.setting))
        steps.append(Step(name, units, units, made.seconds(bench) if units else 0.0))
    least = LEAST_UNITS[bench.setting.size]
    left = None if minutes is None else minutes * (1 - RESERVE) - besides
    return AuditPlan(tuple(_cut(steps, left, least)), minutes, bench.setting.layers, bench.setting.n_layers, besides)


def _cut(steps: Sequence[Step], minutes: float | None, least: int) -> list[Step]:
    found = list(steps)
    while minutes is not None and sum(step.minutes for step in found) > minutes:
        able = [step for step in found if step.units > least]
        if not able:
            break
        most = max(able, key=lambda step: step.units * step.seconds**0.5)
        found[found.index(most)] = replace(most, units=max(least, int(most.units * STEP)))
    return found


def with_cuts(setting: Setting, plan: AuditPlan) -> Setting:
    """The setting with the plan's cuts."""
    return replace(setting, cuts=plan.cuts)
