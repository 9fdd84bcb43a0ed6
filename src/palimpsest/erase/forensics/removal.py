"""`removal`: take the direction that stands out of a layer, without the base.

    found = scan(model)
    edit = removal(model, found.suspect)          # an `Edit`; apply it as any other

Youssef et al. 2026 (arXiv 2505.20819) undo a rank-one edit with the singular directions that it does not fill. Here the pair
that stands out after the outputs are whitened by the other layers (`spectrum`) is brought down to the size of the next one:

    M^-1/2 W = sum_i sigma_i q_i r_i^T        W' = W - (sigma_1 - sigma_2) M^1/2 q_1 r_1^T

What W did along that pair before the edit is not known and is not brought back; how far this restores the old answer stands in
docs/forensics-measured.md. On a layer without an edit it removes something the model had learnt: scan first.
"""

import torch

from palimpsest.edit.artefact import Edit
from palimpsest.edit.payload import LowRank, refuse_quantised
from palimpsest.erase.forensics.spectrum import gram, others
from palimpsest.errors import AnatomyError
from palimpsest.model import Model
from palimpsest.model.anatomy import matrix_of


@torch.no_grad()
def removal(model: Model, layer: int) -> Edit:
    """The outlying direction of one down-projection, brought down to the size of the next.

    Args:
        model: read, never changed.
        layer: whose down-projection; the suspect of a `scan`.

    Raises:
        SettingError, AnatomyError: there is no such layer, it has no down-projection, or no other layer has one.
    """
    part = model.anatomy.down(layer)
    path = f"{part.path}.weight"
    refuse_quantised(model, path)
    parts = [(other.index, other.down) for other in model.anatomy.layers if other.down is not None]
    if len(parts) < 2:
        raise AnatomyError(f"{model.name} has one down-projection and no other layer to compare it with.")
    mean = others([gram(matrix_of(p.module)) for _, p in parts], [index for index, _ in parts].index(layer))
    values, vectors = torch.linalg.eigh(mean.double())
    roots = values.clamp(min=float(values[-1]) * 1e-6).sqrt()
    weight = matrix_of(part.module).double()
    left, sizes, right = torch.linalg.svd((vectors / roots) @ vectors.T @ weight, full_matrices=False)
    out = (vectors * roots) @ vectors.T @ left[:, :1]
    change = LowRank(path, (-(sizes[0] - sizes[1]) * out).float().contiguous(), right[:1].float().contiguous())
    notes = {"layer": layer, "sigma": [float(sizes[0]), float(sizes[1])]}
    return Edit.made_for(model, "removal", (change,), settings={"layer": layer}, notes=notes)
