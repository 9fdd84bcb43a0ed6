"""What the experiments share that measure nothing and conclude from the rows of others.

class Consistency(ReadsRows):
    name = "consistency"
    criteria = ("I4",)
    needs = ("tracing", "lesion")          # conclude is given rows["tracing"] and rows["lesion"]
"""

from collections.abc import Sequence

from palimpsest.audit.bench import Bench
from palimpsest.audit.experiment import Row
from palimpsest.audit.setting import Setting
from palimpsest.errors import SettingError


class ReadsRows:
    """An experiment without units of its own; one derived from it has a name, criteria, needs and `conclude`."""

    name: str

    def units(self, setting: Setting) -> Sequence[str]:
        """None."""
        return ()

    def seconds(self, bench: Bench) -> float:
        """Nothing is measured."""
        return 0.0

    def measure(self, bench: Bench, unit: str) -> Row:
        """Never called.

        Raises:
            SettingError: always; the numbers come from elsewhere.
        """
        raise SettingError(
            f"The experiment {self.name!r} measures nothing, got the unit {unit!r}; it concludes from what others measured."
        )
