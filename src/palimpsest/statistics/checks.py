"""What every function of this room asks of its arguments, said once, so that one mistake has one sentence.

Numbers come as one-dimensional arrays or as plain lists; `Numbers` is that type. Its length carries no name, because
two arguments of different length must end in an `InputError` that says so, not in a type error.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Shaped

from palimpsest.errors import InputError, SettingError

Numbers: TypeAlias = Shaped[np.ndarray, "_"] | Sequence[Any]


def finite_numbers(numbers: Numbers, name: str) -> Float[np.ndarray, "n"]:
    """`numbers` as float64 (n,), n >= 1, without NaN or infinity; booleans become 0 and 1.

    Args:
        numbers: one-dimensional numbers.
        name: what to call them in a message.

    Raises:
        InputError: not one-dimensional, not numeric, empty, or holding NaN or infinite entries (it says how many).
    """
    try:
        array = np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a flat list of numbers ({error}); pass one number a record.") from error
    if array.ndim != 1:
        raise InputError(
            f"{name} must have one dimension, one number a record, got shape {array.shape}; flatten or average first."
        )
    if array.size == 0:
        raise InputError(f"{name} must hold at least one number, got none; check what was filtered out before.")
    refuse_not_finite(array, name)
    return array


def refuse_not_finite(array: Float[np.ndarray, "..."], name: str) -> None:
    """Passes silently when every entry is finite.

    Raises:
        InputError: names how many entries are NaN and how many infinite, and where the first stands.
    """
    bad = ~np.isfinite(array)
    if not bad.any():
        return
    missing = int(np.isnan(array).sum())
    infinite = int(bad.sum()) - missing
    kinds = [f"{count} {kind}" for count, kind in ((missing, "NaN"), (infinite, "infinite")) if count]
    first = tuple(int(index) for index in np.argwhere(bad)[0])
    raise InputError(
        f"{name} must be finite numbers, got {' and '.join(kinds)} of {array.size} (the first at position "
        f"{first[0] if len(first) == 1 else first}); drop those records from every column, and report "
        f"how many were dropped."
    )


def yes_or_no(numbers: Numbers, name: str, a_record: str = "record") -> Float[np.ndarray, "n"]:
    """`numbers` as in `finite_numbers`, each 0 or 1.

    Raises:
        InputError: as `finite_numbers`, or another number is among them.
    """
    array = finite_numbers(numbers, name)
    other = array[~np.isin(array, (0.0, 1.0))]
    if other.size:
        raise InputError(f"{name} must be 0 or 1 for every {a_record}, got {other[0]}; say yes or no for each.")
    return array


def within_0_and_1(numbers: Numbers, name: str, advice: str) -> Float[np.ndarray, "n"]:
    """`numbers` as in `finite_numbers`, each from 0 to 1; `advice` ends the sentence.

    Raises:
        InputError: as `finite_numbers`, or a number lies outside.
    """
    array = finite_numbers(numbers, name)
    outside = array[(array < 0) | (array > 1)]
    if outside.size:
        raise InputError(f"{name} must lie from 0 to 1, got {outside[0]}; {advice}.")
    return array


def same_length(first: int, first_name: str, second: int, second_name: str) -> None:
    """Passes silently when both lengths are equal.

    Raises:
        InputError: names both lengths.
    """
    if first != second:
        raise InputError(
            f"{first_name} and {second_name} must describe the same records, got {first} and {second}; "
            f"pass one entry a record in each."
        )


def tail_rank(level: float, resamples: int) -> int:
    """How many of the sorted resampled statistics lie in one tail, counting the end of the interval itself.

    rank = floor((1 - level) / 2 * (resamples + 1)); the interval runs from the rank-th smallest to the rank-th largest
    (Efron and Tibshirani 1993, section 12.5).

    Raises:
        SettingError: level is not strictly between 0 and 1, or resamples too few for it.
    """
    if not 0 < level < 1:
        raise SettingError(f"level must lie strictly between 0 and 1, got {level}; try 0.95.")
    # the small term keeps 0.025 * 2000 = 49.99999999999999 from losing one
    rank = int((1 - level) / 2 * (resamples + 1) + 1e-9)
    if rank < 1:
        needed = int(np.ceil(2 / (1 - level)))
        raise SettingError(f"resamples must be at least {needed} for level={level}, got {resamples}; use 2000.")
    return rank
