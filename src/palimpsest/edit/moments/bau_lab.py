"""The statistics that the Bau lab shares for ROME and MEMIT, `<layer>_float32_mom2_100000.npz`.

    mom2.mom2      the sum of k k^T, not divided by anything (forgetting this gives a wrong null space)
    mom2.count     the number of keys in it
    sample_size    documents it was asked to read
    constructor, mom2.constructor     names of Python classes, which are not read

They name no weights, so only their width can be checked against a model. Nothing in the file is executed: numpy stores Python
objects as pickles, and those are refused.
"""

import zipfile
import zlib
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from palimpsest.edit.moments.moment import SecondMoment
from palimpsest.edit.moments.triangle import mirror
from palimpsest.errors import InputError


def read_bau_lab(path: str | PathLike[str], layer: int, *, module: str | None = None) -> SecondMoment:
    """C of one layer from an `.npz` of the Bau lab.

    Args:
        path: the file.
        layer: which layer it is of; the file does not say so, only its name does.
        module: path of the down-projection, for the provenance.

    Raises:
        InputError: there is no such file, it is not such statistics, or it holds pickled Python objects.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            total = torch.from_numpy(np.asarray(arrays["mom2.mom2"], dtype=np.float64))
            count = int(arrays["mom2.count"])
            sample = str(arrays["sample_size"]) if "sample_size" in arrays else ""
    except OSError as error:
        raise InputError(
            f"The statistics {path} cannot be read ({error.strerror or error}); name an .npz file."
        ) from None
    except KeyError as error:
        raise InputError(f"The statistics {path} lack {error.args[0]}; expected mom2.mom2 and mom2.count.") from None
    except (ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        why = "it holds pickled Python objects, which can run code" if "pickle" in str(error) else "it is damaged"
        raise InputError(
            f"The statistics {path} are refused: {why}; expected plain arrays mom2.mom2 and mom2.count."
        ) from None
    if total.ndim != 2 or total.shape[0] != total.shape[1] or count < 1 or not bool(torch.isfinite(total).all()):
        raise InputError(
            f"The statistics {path} are no second moments: expected a finite square sum and a count above 0, got shape "
            f"{tuple(total.shape)} and count {count}."
        )
    provenance = {"layer": str(layer), "source": Path(path).name, "documents": sample, "module": module or ""}
    given = {name: value for name, value in sorted(provenance.items()) if value}
    return SecondMoment(mirror((total + total.T) / 2) / count, count, given)
