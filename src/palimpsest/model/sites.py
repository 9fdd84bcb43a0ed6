"""The places inside a decoder that palimpsest reads and writes, by one name for every architecture.

Inside layer l, for one token, with residual stream h:

    resid_in   h before the layer
    attn_out   output of the attention module
    key        k, the input of the MLP's down-projection: act(W_up h), or act(W_gate h) * (W_up h) in a gated MLP
    value      v = W_down k + b, the output of the down-projection
    mlp_out    output of the MLP module (the same tensor as `value` unless experts or a norm follow inside the module)
    resid_out  h after the layer, which is `resid_in` of layer l + 1

`key` and `value` are the k and v of Geva et al. 2021 and of ROME (Meng et al. 2022, section 3.1). `embed` is the output
of the token embedding, where causal tracing adds its noise (section 2.1); it has no layer.
"""

from dataclasses import dataclass

from palimpsest.errors import SettingError, did_you_mean

KINDS = ("embed", "resid_in", "attn_out", "key", "value", "mlp_out", "resid_out")


@dataclass(frozen=True, order=True)
class Site:
    """One place: a kind of `KINDS` and a layer counted from 0 (-1 for `embed`)."""

    kind: str
    layer: int = -1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingError(f"There is no site called {self.kind!r}.{did_you_mean(self.kind, KINDS)}")

    def __str__(self) -> str:
        return self.kind if self.kind == "embed" else f"{self.kind}[{self.layer}]"


EMBED = Site("embed")
