"""Where a second moment came from: enough to know whether it may be used, and to measure it again.

module, layer        the down-projection whose keys were read
weights              SHA-256 of every weight that is not above the layer
text                 SHA-256 of the corpus
tokens               the budget that was asked for (`SecondMoment.count` is what was read)
document_tokens      longest piece of text read at once
dtype                of the forward pass
"""

import hashlib
from collections.abc import Sequence

from palimpsest.model import Model
from palimpsest.model.anatomy import in_out_features
from palimpsest.model.model import hash_tensor

DOCUMENT_TOKENS = 256  # longest piece of text read at once
TOKENS_PER_KEY_WIDTH = 10  # FastMEMIT (arXiv 2506.04226) found 2 to 10 times the key width enough


def widths_of(model: Model, layers: Sequence[int]) -> dict[int, int]:
    """Width of the keys of each layer; raises `AnatomyError` where a layer has no down-projection."""
    return {layer: in_out_features(model.anatomy.down(layer).module)[0] for layer in layers}


def provenance_of(model: Model, layers: Sequence[int], text: str, budget: int) -> dict[int, dict[str, str]]:
    """Provenance of the second moments of `text` at each of `layers`."""
    corpus, weights = hashlib.sha256(text.encode()).hexdigest(), weights_below(model, layers)
    return {
        layer: {
            "document_tokens": str(DOCUMENT_TOKENS),
            "dtype": str(model.parameter(model.anatomy.down(layer).path + ".weight").dtype),
            "layer": str(layer),
            "module": model.anatomy.down(layer).path,
            "text": corpus,
            "tokens": str(budget),
            "weights": weights[layer],
        }
        for layer in layers
    }


def weights_below(model: Model, layers: Sequence[int]) -> dict[int, str]:
    """For each layer `Model.fingerprint` of the weights that are not above it: those above cannot change its keys.

    Each weight is hashed once, however many layers are asked for.
    """
    above = {layer: tuple(f"{rest.block.path}." for rest in model.anatomy.layers[layer + 1 :]) for layer in layers}
    digests = {layer: hashlib.sha256() for layer in layers}
    for path, weight in model.net.named_parameters():
        below = [layer for layer in digests if not path.startswith(above[layer])]
        if below:
            content = path.encode() + hash_tensor(weight).encode()
            for layer in below:
                digests[layer].update(content)
    return {layer: digest.hexdigest() for layer, digest in digests.items()}
