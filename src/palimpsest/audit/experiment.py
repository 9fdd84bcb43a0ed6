"""`Experiment`: what measures endpoints; adding one is one file in `palimpsest/audit/experiments/`, or an entry point elsewhere.

    class Lesions:
        name = "lesion"
        criteria = ("I1",)
        needs = ()

        def units(self, setting):          # what can be measured alone, and resumed: usually one per fact
            return setting.facts_for(self.name)

        def seconds(self, bench):          # what one unit is expected to cost on this model, for the plan
            ...

        def measure(self, bench, unit):    # plain data of one unit; the only part that touches a model
            ...

        def conclude(self, setting, facts, rows):    # pure: from all rows to evidence
            ...

    EXPERIMENT = Lesions

`measure` and `conclude` are apart so that a killed audit resumes fact by fact, that every number can be computed again from the
stored rows, and that the null audit can ask the same rows about claims known to be empty (`setting.at(other_layer)`, rows of an
untrained model). `measure` therefore returns what *all* layers of the setting say, and never looks at `setting.place.centre`
except where an intervention is made at one place only.

An experiment whose evidence is computed from others' rows has no units of its own and names them in `needs`: `rows["lesion"]` are
then the rows of the lesions. A unit that failed has a row {"id": ..., "error": sentence}; `conclude` is not given these.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from pkgutil import iter_modules
from typing import Any, Protocol, TypeAlias, runtime_checkable

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.setting import Setting
from palimpsest.errors import SettingError, did_you_mean
from palimpsest.facts import Fact

Row: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = Mapping[str, Sequence[Row]]

GROUP = "palimpsest.experiments"


@runtime_checkable
class Experiment(Protocol):
    """What measures endpoints; see the module's text."""

    name: str
    criteria: tuple[str, ...]
    needs: tuple[str, ...]

    def units(self, setting: Setting) -> Sequence[str]:
        """Names of what is measured alone, in order; none for an experiment that reads others' rows."""
        ...

    def seconds(self, bench: Bench) -> float:
        """About what one unit costs on this model and machine."""
        ...

    def measure(self, bench: Bench, unit: str) -> Row:
        """What the model says to one unit, as plain data."""
        ...

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """Evidence from the rows of this experiment, `rows[self.name]`, and of those it needs. Touches no model."""
        ...


def experiments() -> dict[str, Experiment]:
    """Every experiment by its name: `EXPERIMENT` of each module of `palimpsest.audit.experiments`, and others' entry points."""
    package = import_module("palimpsest.audit.experiments")
    modules = (import_module(f"{package.__name__}.{found.name}") for found in iter_modules(package.__path__))
    made = [module.EXPERIMENT() for module in modules if hasattr(module, "EXPERIMENT")]
    made += [_loaded(point) for point in metadata.entry_points(group=GROUP)]
    names = [one.name for one in made]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingError(f"Two experiments are called {twice[0]!r}; give the one of your own another name.")
    return {one.name: one for one in sorted(made, key=lambda one: one.name)}


def _loaded(point: metadata.EntryPoint) -> Experiment:
    """The experiment of another package."""
    try:
        made = point.load()()
    except Exception as error:  # whatever somebody else's module does when it is imported
        raise SettingError(
            f"The experiment {point.value!r} of another package cannot be loaded ({error}); mend or remove that package."
        ) from error
    if not isinstance(made, Experiment):
        parts = ("name", "criteria", "needs", "units", "seconds", "measure", "conclude")
        missing = ", ".join(part for part in parts if not hasattr(made, part))
        raise SettingError(
            f"The experiment {point.value!r} of another package lacks {missing}; an experiment has them."
        )
    return made


def chosen_experiments(names: Sequence[str] | None) -> dict[str, Experiment]:
    """The experiments of these names, or all.

    Raises:
        SettingError: there is none of a name, or no name.
    """
    every = experiments()
    if names is not None and not names:
        raise SettingError("No experiment is named; name some, or leave the choice out to run all.")
    for name in names or ():
        if name not in every:
            raise SettingError(f"There is no experiment called {name!r}.{did_you_mean(name, list(every))}")
    return {name: one for name, one in every.items() if names is None or name in names}
