"""An estimate: one number, its interval, and how much evidence stands behind it.

    Estimate(value=0.81, low=0.74, high=0.87, n=100, clusters=23)
    str(...)             # '0.81 [0.74, 0.87] (n=100, 23 clusters)'

Every number the library reports is one of these; a bare float is never a result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from palimpsest.errors import InputError


@dataclass(frozen=True, eq=False)
class Estimate:
    """One number with its interval.

    NaN means "not known": a `value` of NaN is an estimate that could not be made, a `low` and `high` of NaN an interval
    that could not be made (a single record has none). Two estimates with NaN in the same places are equal.

    Args:
        value: the estimate, in `unit`.
        low, high: the ends of the interval, in `unit`; either may be infinite.
        n: how many records went in, before any clustering.
        clusters: how many independent clusters (outermost level) they form; equal to `n` where each stands alone.
        level: the coverage the interval aims at, between 0 and 1.
        method: how value and interval were made, in words.
        unit: the unit of value, low and high; empty for a pure number or a proportion.

    Raises:
        InputError: n or clusters is negative, level is not strictly between 0 and 1, or low is above high.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int
    level: float = 0.95
    method: str = ""
    unit: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "low", "high", "level"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("n", "clusters"):
            object.__setattr__(self, name, int(getattr(self, name)))
            if getattr(self, name) < 0:
                raise InputError(f"{name} of an Estimate must be 0 or more, got {getattr(self, name)}; give a count.")
        if not 0 < self.level < 1:
            raise InputError(f"level of an Estimate must lie strictly between 0 and 1, got {self.level}; try 0.95.")
        if self.low > self.high:
            raise InputError(
                f"The interval of an Estimate must not run backwards, got low={self.low} above high={self.high}; swap."
            )

    @classmethod
    def unknown(cls, reason: str, n: int = 0) -> Estimate:
        """The estimate that could not be made of n records; `method` holds the reason."""
        return cls(math.nan, math.nan, math.nan, n, 0, method=reason)

    @classmethod
    def exact(cls, value: float, n: int, clusters: int, *, method: str, unit: str = "") -> Estimate:
        """A number without sampling error of its own, such as a count: its interval ends where it stands."""
        return cls(value, value, value, n, clusters, method=method, unit=unit)

    def below(self, limit: float, unit: str = "") -> Estimate:
        """limit - estimate: how far a number that is better when small stays below its limit, so that larger is better.

        Args:
            limit: in the unit of the estimate; 0 turns the sign only.
            unit: of the result; "" says "limit - unit of the estimate".
        """
        low, high = limit - self.high, limit - self.low
        return replace(
            self, value=limit - self.value, low=low, high=high, unit=unit or f"{limit:g} - {self.unit or 'estimate'}"
        )

    @property
    def width(self) -> float:
        """high - low, in `unit`; NaN where there is no interval."""
        return self.high - self.low

    @property
    def is_known(self) -> bool:
        """Whether value, low and high are all numbers (infinite ends count as numbers, NaN does not)."""
        return not any(math.isnan(number) for number in (self.value, self.low, self.high))

    def excludes(self, number: float) -> bool:
        """Whether `number` lies outside [low, high]; False where there is no interval, for then nothing is excluded."""
        return number < self.low or number > self.high

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `Estimate.from_json` reads back.

        It is strict JSON: NaN is written as None, an infinite end as "inf" or "-inf".
        """
        return {
            "value": _number_to_json(self.value),
            "low": _number_to_json(self.low),
            "high": _number_to_json(self.high),
            "n": self.n,
            "clusters": self.clusters,
            "level": self.level,
            "method": self.method,
            "unit": self.unit,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Estimate:
        """The estimate `to_json` wrote.

        Raises:
            InputError: a field is missing, unknown, or not of its type.
        """
        if not isinstance(record, Mapping):
            raise InputError(f"An Estimate is read from a JSON object, got {record!r}; pass what to_json wrote.")
        required = ("value", "low", "high", "n", "clusters")
        missing = [name for name in required if name not in record]
        unknown = [str(name) for name in record if name not in (*required, "level", "method", "unit")]
        if missing or unknown:
            raise InputError(
                f"An Estimate needs the fields {', '.join(required)}, missing: {', '.join(missing) or 'none'}, "
                f"unknown: {', '.join(unknown) or 'none'}; pass what Estimate.to_json wrote."
            )
        try:
            return cls(
                value=_number_from_json(record["value"]),
                low=_number_from_json(record["low"]),
                high=_number_from_json(record["high"]),
                n=int(record["n"]),
                clusters=int(record["clusters"]),
                level=float(record.get("level", 0.95)),
                method=str(record.get("method", "")),
                unit=str(record.get("unit", "")),
            )
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"An Estimate holds numbers, got {dict(record)!r} ({error}); pass what Estimate.to_json wrote."
            ) from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Estimate):
            return NotImplemented
        return self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(tuple(self.to_json().values()))

    def __str__(self) -> str:
        decimals = _decimals(self.value, self.low, self.high)
        unit = f" {self.unit}" if self.unit else ""
        if math.isnan(self.value):
            number = "unknown"
        elif math.isnan(self.low) or math.isnan(self.high):
            number = f"{_written(self.value, decimals)}{unit} [no interval]"
        else:
            ends = f"[{_written(self.low, decimals)}, {_written(self.high, decimals)}]"
            number = f"{_written(self.value, decimals)} {ends}{unit}"
        return f"{number} (n={self.n}, {self.clusters} cluster{'' if self.clusters == 1 else 's'})"


def _number_to_json(number: float) -> float | str | None:
    if math.isnan(number):
        return None
    return number if math.isfinite(number) else str(number)


def _number_from_json(number: float | int | str | None) -> float:
    return math.nan if number is None else float(number)


def _decimals(value: float, low: float, high: float) -> int:
    """Decimals that show two digits of the interval's width, or of the value where there is no width; at most 8."""
    width = high - low
    scale = width if math.isfinite(width) and width > 0 else abs(value)
    if not math.isfinite(scale) or scale == 0:
        return 2
    wanted = 1 - math.floor(math.log10(scale))
    if scale is not width and width == 0:
        wanted = max(2, wanted)
    return min(8, max(0, wanted))


def _written(number: float, decimals: int) -> str:
    """`number` with so many decimals; adding 0.0 turns a rounded "-0.00" into "0.00"."""
    return f"{round(number, decimals) + 0.0:.{decimals}f}" if math.isfinite(number) else str(number)
