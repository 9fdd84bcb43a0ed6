"""Rescue: does what an edit changed come back when its layer writes at one token what it wrote before?

    m = log p(old answer) - log p(new answer)

    rescue = sum over facts of (m(edited, put back) - m(edited)) / sum of (m(before) - m(edited))          1: all of it comes back
    left   = |m(edit taken back) - m(before)|                                                            0: the very same weights

A rank-one edit changes what a layer writes at every token whose key resembles the one it was made for; the claim is about one. So
the weights stay edited, and only there the layer's output is put back to what it was: if the edit works through the place, the
old answer returns; if it works through other tokens as well, part of it does not (rescue after a lesion: Craver 2007, chapter 4).

Null N1 puts back another layer's output at the same token: layers before the edit cannot bring back anything, later ones only what
they had passed on.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.edit_layers import token_of
from palimpsest.audit.experiments.edit_reading import SEARCH_PASSES, search_passes
from palimpsest.audit.experiments.over_facts import clusters_of_rows, column
from palimpsest.audit.experiments.roles import rounded
from palimpsest.audit.setting import Setting
from palimpsest.errors import FactError
from palimpsest.facts import Fact
from palimpsest.locate.answers import first_token, prompt_and_token
from palimpsest.model import Model, Site, Tap, pad
from palimpsest.statistics import Estimate, cluster_bootstrap, paired_difference, ratio_estimate, sign_flip_p

SANE = 0.5  # of what the edit changed; other layers that bring back more by themselves are no null


class Rescue:
    """See the module's text."""

    name = "rescue"
    criteria: tuple[str, ...] = ("I10",)
    needs: tuple[str, ...] = ()

    def units(self, setting: Setting) -> Sequence[str]:
        """One a confirmation fact."""
        return setting.facts_for(self.name)

    def seconds(self, bench: Bench) -> float:
        """A short prompt once a layer, and half a value search: where a plan is cut, others edit about half of these facts."""
        return bench.seconds_a_pass * (max(search_passes(bench), SEARCH_PASSES / 2) + 3 + len(bench.setting.layers) / 4)

    def measure(self, bench: Bench, unit: str) -> Row:
        """m before the edit, with it, with each layer's output put back, and how much is left when the edit is taken back.

        Raises:
            FactError: the fact lacks an answer.
        """
        fact, setting = bench[unit], bench.setting
        if fact.target_true is None or fact.target_new is None:
            raise FactError(f"The fact {fact.id} needs target_true and target_new to be edited; add what lacks.")
        at, layers = token_of(bench.model, fact, setting.place.position), setting.layers
        before, written = _before(bench.model, fact, at, layers)
        with bench.edit_at([fact], setting.place.centre).applied(bench.model):
            edited, *back = _margins(bench.model, fact, at, written)
        after, _ = _before(bench.model, fact, at, layers)
        return {
            "layer": setting.place.centre,
            "layers": list(layers),
            "before": rounded(before),
            "edited": rounded(edited),
            "back": rounded(back),
            "left": rounded(abs(after - before)),
        }

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """`rescue`, with other layers beside it; unknown where the edits change nothing for sure."""
        own = [row for row in rows.get(self.name, ()) if row["layer"] == setting.place.centre]
        if not own:
            return []
        clusters, seed = clusters_of_rows(own, facts), setting.seed
        before, edited = column(own, lambda row: row["before"]), column(own, lambda row: row["edited"])
        back = column(own, lambda row: row["back"]) - edited[:, None]
        at = own[0]["layers"].index(setting.place.centre)
        moved = cluster_bootstrap(before - edited, clusters, seed=seed, unit="logits")
        left = max(float(row["left"]) for row in own)
        if not moved.low > 0:
            why = f"the edits move the answers by {moved}, which may be nothing that could come back"
            return [self._evidence(Estimate.unknown(why, len(own)), left)]
        here, others = back[:, at], [back[:, i] for i in range(back.shape[1]) if i != at]
        share = ratio_estimate(here, before - edited, clusters, seed=seed, unit="share of what the edit changed")
        if not others:
            return [self._evidence(share, left)]
        elsewhere = np.median(others, axis=0)
        null = ratio_estimate(elsewhere, before - edited, clusters, seed=seed, unit=share.unit)
        control = Control(
            "N1", null, "the median other layer's output put back at the same token", bool(null.value < SANE)
        )
        return [
            self._evidence(
                share,
                left,
                (control,),
                paired_difference(here, elsewhere, clusters, seed=seed, unit="logits"),
                sign_flip_p(here - elsewhere, clusters, flip="inner", alternative="greater", seed=seed),
            )
        ]

    def _evidence(
        self,
        estimate: Estimate,
        left: float,
        controls: tuple[Control, ...] = (),
        contrast: Estimate | None = None,
        p: float | None = None,
    ) -> Evidence:
        return Evidence(
            self.name,
            "rescue",
            ("I10",),
            "causal",
            "interventional",
            estimate,
            controls,
            contrast,
            p,
            note="The weights stay edited; the edited layer's output is put back at the place's token only. "
            f"Taking the edit itself back leaves {left:.1g} logits.",
            data={"left": left},
        )


def _before(model: Model, fact: Fact, at: int, layers: Sequence[int]) -> tuple[float, dict[int, Tensor]]:
    """m of the model as it is, and what each layer's MLP writes at the token."""
    (margin,) = _margins(model, fact, at, {})
    sites = {layer: Site("mlp_out", layer) for layer in layers}
    with torch.no_grad(), model.evaluating():
        states = model.record(pad([model.encode(fact.text).ids]), list(sites.values()))
    return margin, {layer: states[site][0, at] for layer, site in sites.items()}


@torch.no_grad()
def _margins(model: Model, fact: Fact, at: int, written: Mapping[int, Tensor]) -> list[float]:
    """m as the model is, then with each layer's output at the token put to what is given, all rows of one batch."""
    encoded, old = prompt_and_token(model, fact.text, str(fact.target_true))
    new = first_token(model, fact.text, str(fact.target_new))

    def put(row: int, layer: int, state: Tensor) -> Tap:
        def function(states: Tensor) -> Tensor:
            states = states.clone()
            states[row, at] = state.to(states)
            return states

        return Tap(Site("mlp_out", layer), function)

    batch = pad([encoded.ids] * (1 + len(written)))
    taps = [put(row, layer, state) for row, (layer, state) in enumerate(written.items(), start=1)]
    last = torch.full((1 + len(written), 1), len(encoded) - 1)
    with model.evaluating():
        logits = model.run(batch, at=last.to(model.device), taps=taps)[:, 0]
    margins: list[float] = (logits[:, old] - logits[:, new]).double().cpu().tolist()
    return margins


EXPERIMENT = Rescue
