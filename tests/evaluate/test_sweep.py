"""The sweep against edits made one by one, roles that are no place of their own, resuming, and the choice of a layer."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import palimpsest as pal
from oracles.small import EIFFEL, FACTS, JAPAN, documents, model_of, smollm2, with_probes
from palimpsest.edit import Edit
from palimpsest.errors import EditError, InputError, SettingError
from palimpsest.evaluate import counterfact_scores
from palimpsest.evaluate import sweep as room
from palimpsest.evaluate.sweep import absent_role, spread_layers, sweep
from palimpsest.evaluate.sweep_result import CELL_METRICS, Sweep, rewrite_score
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.statistics import cluster_bootstrap, harmonic_mean_estimate

FEW: dict[str, Any] = {"text": documents(), "contexts": ((5, 1),), "steps": 3}
ASKED = tuple(with_probes(f, [f"So {f.text}"], [("The capital of France is", "Paris")]) for f in FACTS)
ENDING = Fact("Peru", "The capital is that of {}", "Lima", "Oslo", id="peru", relation="capital")
UNFINISHED = Fact("Peru", "The capital of {} is", "Lima", id="unfinished")


@pytest.fixture
def model() -> Model:
    return model_of("llama")


def left_alone(model: Model) -> bool:
    """Whether the model is as it was built."""
    clean = not any(module._forward_hooks or module._forward_pre_hooks for module in model.net.modules())
    return clean and model.applied == [] and model.fingerprint() == model_of("llama").fingerprint()


def test_every_edit_is_that_of_the_method_alone(model: Model) -> None:
    tokens = ("subject_first", "last")
    found = sweep(model, ASKED, layers=[0, 1], tokens=tokens, **FEW)
    assert not found.failed
    pres = counterfact_scores(model, ASKED)
    for l, layer in enumerate((0, 1)):
        for t, token in enumerate(tokens):
            made_by = pal.editor(model, "rome", layers=layer, token=token, **FEW)
            for i, fact in enumerate(ASKED):
                with made_by.edit([fact]).applied(model):
                    (post,) = counterfact_scores(model, [fact])
                for metric in ("es", "em", "ps", "pm", "ns", "nm"):
                    assert found.values(metric)[l, t, i] == pytest.approx(post[metric], abs=1e-5)
                before, after = math.exp(-pres[i]["nll_new"]), math.exp(-post["nll_new"])
                assert found.values("rewrite")[l, t, i] == pytest.approx((after - before) / (1 - before), abs=1e-6)
                assert found.unedited("em")[i] == pytest.approx(pres[i]["em"], abs=1e-6)
    assert left_alone(model)
    japan = found.values("rewrite")[:, :, 2].ravel()
    assert (np.abs(japan) > 1e-4).all()  # every edit changes something, and every cell something else
    assert len({round(float(value), 5) for value in japan}) == 4


def test_at_the_last_layer_only_the_last_token_can_carry_an_edit(model: Model) -> None:
    found = sweep(model, ASKED, layers=[2], tokens=("subject_last", "last"), **FEW)
    assert (found.values("rewrite")[0, 0] == 0.0).all()  # no layer is left that could read the subject's token
    assert (found.values("rewrite")[0, 1] > 0.0).all()


def test_cells_have_the_estimates_of_their_facts(model: Model) -> None:
    found = sweep(model, ASKED, layers=[1], tokens=["subject_last"], **FEW)
    clusters = [(fact.relation, fact.subject) for fact in ASKED]
    values = found.values("rewrite")[0, 0]
    assert found.estimate("rewrite", 1, "subject_last") == cluster_bootstrap(values, clusters)
    parts = [found.values(m)[0, 0] for m in ("es", "ps", "ns")]
    assert found.estimate("s", 1, "subject_last") == harmonic_mean_estimate(parts, clusters)
    stored = json.loads(json.dumps(found.to_json()))
    (cell,) = stored["cells"]
    assert (cell["layer"], cell["token"], cell["n"], cell["absent"]) == (1, "subject_last", 3, 0)
    assert cell["rewrite"] == found.estimate("rewrite", 1, "subject_last").to_json()
    assert "no evidence that the fact is stored" in stored["reads"]
    assert [row["layer"] for row in found.table("es")] == ["1", "facts"]


def test_a_role_that_is_no_place_of_its_own_is_counted_and_not_measured(model: Model) -> None:
    short = replace(JAPAN, subject="a", id="one token")
    two = replace(JAPAN, subject="zz", id="two tokens")
    subject = {f.id: len(model.encode(f.text).tokens_of(*f.subject_span)) for f in (short, two, ENDING)}
    assert (subject["one token"], subject["two tokens"]) == (1, 2)
    assert subject["peru"] >= 3
    found = sweep(model, (short, two, ENDING), layers=[1], **FEW)
    there = {token: ~np.isnan(found.values("rewrite")[0, t]) for t, token in enumerate(found.tokens)}
    assert there["subject_first"].tolist() == [False, True, True]
    assert there["subject_middle"].tolist() == [False, False, True]
    assert there["subject_last"].tolist() == [True, True, True]
    assert there["last"].tolist() == [True, True, False]
    assert found.absent(1, "last") == {"peru": "the prompt ends with its subject"}
    cells = {cell["token"]: (cell["n"], cell["absent"]) for cell in found.to_json()["cells"]}
    assert cells["subject_middle"] == (1, 2)
    assert found.table()[-1]["subject_middle"] == "1"
    assert not found.failed
    assert absent_role(model, two, "subject_middle") == "the subject has 2 tokens and none between its first and last"


def test_a_fact_that_fails_stands_in_its_row_and_harms_no_other(model: Model) -> None:
    alone = sweep(model, ASKED, layers=[1], tokens=["subject_last"], **FEW)
    found = sweep(model, (ASKED[0], UNFINISHED, *ASKED[1:]), layers=[1], tokens=["subject_last"], **FEW)
    assert set(found.failed) == {"unedited/0: unfinished", "layer 1/subject_last/0: unfinished"}
    assert "no target_new" in found.failed["layer 1/subject_last/0: unfinished"]
    kept = found.values("rewrite")[0, 0, [0, 2, 3]]
    assert kept == pytest.approx(alone.values("rewrite")[0, 0], abs=1e-5)
    assert np.isnan(found.values("rewrite")[0, 0, 1])
    assert left_alone(model)


class OneByOne:
    """A method without `edit_each`, and which knows no token."""

    name = "one by one"

    def __init__(self, model: Model, *, layers: tuple[int, ...], progress: Any = None) -> None:
        self.made = pal.editor(model, "rome", layers=layers, **FEW)
        self.card = {"layers": list(layers)}

    def edit(self, facts: Sequence[Fact]) -> Edit:
        """One fact."""
        assert len(facts) == 1
        if facts[0].id == "japan":
            raise EditError("The search diverged.")
        return self.made.edit(facts)


def test_a_method_that_edits_one_by_one_is_swept_too(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "editor", lambda model, method, *, layers, **settings: OneByOne(model, layers=(layers,)))
    found = sweep(model, ASKED, method="one by one", layers=[1], tokens=["subject_last"])
    monkeypatch.undo()
    together = sweep(model, ASKED, layers=[1], tokens=["subject_last"], **FEW)
    sweep_of_rome = together.values("rewrite")[0, 0]
    assert found.values("rewrite")[0, 0, [0, 2]] == pytest.approx(sweep_of_rome[[0, 2]], abs=1e-5)
    assert found.failed == {"layer 1/subject_last/0: japan": "The search diverged."}


def test_a_method_without_a_choice_of_token_is_swept_over_layers(model: Model) -> None:
    found = sweep(model, ASKED[:2], method="ft", layers=[1, 2], steps=2)
    assert found.tokens == ("subject_last",)
    assert found.settings["method_settings"]["layers_from"] == "given"
    assert not found.failed
    alone = pal.edit(model, ASKED[0], method="ft", layers=1, steps=2)
    assert found.records[1]["facts"][0]["norm"] == pytest.approx(alone.norm)
    assert (
        sweep(model, ASKED[:1], method="random", like="rome", layers=[1], covariance="identity", **FEW).tokens
        == room.ROLES
    )
    with pytest.raises(
        SettingError, match="ft has no setting 'token' and is swept over layers alone.*leave tokens out"
    ):
        sweep(model, ASKED, method="ft", tokens=("subject_last", "last"))
    with pytest.raises(SettingError, match="tokens=\\(...,\\)"):
        sweep(model, ASKED, token="last", **FEW)
    with pytest.raises(SettingError, match="mlp_layers and attention_layers.*cannot be swept"):
        sweep(model, ASKED, method="joint", layers=[1])


class Fragile(OneByOne):
    """Its edit of one fact cannot be applied, its layer 2 cannot be prepared."""

    def __init__(self, model: Model, *, layers: tuple[int, ...], progress: Any = None) -> None:
        if layers == (2,):
            raise EditError("The second moment is singular.")
        super().__init__(model, layers=layers)

    def edit(self, facts: Sequence[Fact]) -> Edit:
        """One fact."""
        made = self.made.edit(facts)
        (payload,) = made.payloads
        broken = replace(payload, path="no.such.weight")
        return replace(made, payloads=(broken,)) if facts[0].id == "japan" else made


def test_what_fails_costs_one_fact_in_one_cell(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "editor", lambda model, method, *, layers, **settings: Fragile(model, layers=(layers,)))
    asked = [replace(fact, id=fact.id if fact.id != "eiffel" else "a: b: c") for fact in ASKED]
    found = sweep(model, asked, method="fragile", layers=[1])
    monkeypatch.undo()
    assert set(found.failed) == {"layer 1/subject_last/0: japan"}
    assert np.isnan(found.values("rewrite")[0, 0]).tolist() == [fact.id == "japan" for fact in asked]
    assert found.failed_facts == ("japan",)
    assert found.table()[-1] == {"layer": "facts", "subject_last": "2"}
    assert left_alone(model)
    monkeypatch.setattr(room, "editor", lambda model, method, *, layers, **settings: Fragile(model, layers=(layers,)))
    found = sweep(model, asked, method="fragile", layers=[1, 2])
    assert found.failed_facts == tuple(fact.id for fact in asked)
    assert found.failed["layer 2/subject_last/0: a: b: c"] == "The second moment is singular."
    assert found.table()[-1] == {"layer": "facts", "subject_last": "0-2"}


class Killed(BaseException):
    """Ends the work from outside."""


def test_an_interrupted_sweep_ends_in_the_same_bytes_and_so_do_shards(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "FACTS_AT_ONCE", 2)
    asked: dict[str, Any] = {"layers": [0, 1], "tokens": ["subject_last"], **FEW}
    whole = sweep(model, ASKED, out=tmp_path / "whole", **asked)

    def kill(done: int, total: int, label: str) -> None:
        if label == "layer 0/subject_last/1":
            raise Killed

    with pytest.raises(Killed):
        sweep(model, ASKED, out=tmp_path / "cut", progress=kill, **asked)
    assert not (tmp_path / "cut" / "results.json").exists()
    sweep(model, ASKED, out=tmp_path / "cut", **asked)
    for shard in ("1/2", "2/2"):
        sweep(model, ASKED, out=tmp_path / "shards", shard=shard, **asked)
    merged = sweep(model, ASKED, out=tmp_path / "shards", **asked)
    for name in ("samples.jsonl", "results.json"):
        stored = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "cut" / name).read_bytes() == stored
        assert (tmp_path / "shards" / name).read_bytes() == stored
    for metric in CELL_METRICS:
        np.testing.assert_array_equal(merged.values(metric), whole.values(metric))
    with pytest.raises(SettingError, match="steps"):
        sweep(model, ASKED, out=tmp_path / "whole", **(asked | {"steps": 4}))


def made_up(values: dict[str, np.ndarray], *, relations: int = 3) -> Sweep:
    """A sweep whose metrics are given, (layers, facts) each, at one token."""
    layers, facts = next(iter(values.values())).shape
    names = [replace(EIFFEL, subject=f"Tower {i}", id=str(i), relation=f"r{i % relations}") for i in range(facts)]
    rest = dict.fromkeys(("es", "em", "ps", "pm", "ns", "nm"), 1.0) | {"nll_new": 1.0, "nll_true": 1.0}
    before = [{"fact": fact.id, "pre": rest | {"nll_new": 50.0}} for fact in names]
    records: list[dict[str, Any]] = [{"id": "unedited/0", "layer": None, "token": None, "facts": before}]
    for l in range(layers):
        rows = []
        for i, fact in enumerate(names):
            post = rest | {
                m: (None if np.isnan(v[l, i]) else float(v[l, i])) for m, v in values.items() if m != "rewrite"
            }
            if "rewrite" in values:
                post["nll_new"] = -math.log(values["rewrite"][l, i])
            rows.append({"fact": fact.id, "post": post})
        records.append({"id": f"layer {l}/subject_last/0", "layer": l, "token": "subject_last", "facts": rows})
    return Sweep(tuple(records), tuple(names), tuple(range(layers)), ("subject_last",))


def test_the_layer_is_chosen_on_half_of_the_subjects_and_reported_on_the_others() -> None:
    draw = np.random.default_rng(0)
    found = made_up({"rewrite": np.clip(draw.normal([[0.3], [0.5], [0.9]], 0.05, (3, 20)), 0.01, 0.99)})
    choice = found.best_layer()
    assert (choice.layer, choice.metric) == (2, "s")  # ES, PS and NS are 1 everywhere: the rewrite score decides
    assert (choice.chosen_on, choice.reported_on) == (10, 10)
    choice = found.best_layer(metric="rewrite")
    assert choice.layer == 2
    assert choice.as_good == ()
    values = found.values("rewrite")[2, 0]
    order = np.random.default_rng(0).permutation(20)
    subjects = sorted(fact.subject for fact in found.facts)
    chosen_by = {subjects[i] for i in order[:10]}
    reporting = [i for i, fact in enumerate(found.facts) if fact.subject not in chosen_by]
    clusters = [found.clusters[i] for i in reporting]
    assert choice.reported["rewrite"] == cluster_bootstrap(values[reporting], clusters)
    choosing = [i for i in range(20) if i not in reporting]
    assert choice.by_layer[2] == pytest.approx(values[choosing].mean())
    assert "chosen by REWRITE on half of the subjects (10 facts), reported on the other half" in str(choice)
    assert json.loads(json.dumps(choice.to_json()))["layer"] == 2


def test_a_layer_that_only_looks_best_where_it_was_chosen_is_named_as_good_as_others() -> None:
    draw = np.random.default_rng(1)
    choice = made_up({"rewrite": draw.uniform(0.2, 0.8, (4, 24))}).best_layer(metric="rewrite")
    assert len(choice.as_good) >= 2
    assert choice.layer not in choice.as_good


def test_s_is_not_asked_of_facts_without_neighbours() -> None:
    values = {"rewrite": np.tile([[0.2], [0.9]], 6), "ns": np.full((2, 6), np.nan)}
    choice = made_up(values).best_layer()
    assert (choice.metric, choice.layer) == ("rewrite", 1)
    assert "s" not in choice.reported
    with pytest.raises(InputError, match="got 0; sweep over more facts"):
        made_up(values).best_layer(metric="s")


def test_layers_are_compared_by_s_itself() -> None:
    """Layer 0 has the same scores in every fact; layer 1 has a higher arithmetic mean in each of them, and S = 0."""
    flat = {"es": [0.6, 1.0], "ps": [0.6, 1.0], "ns": [0.6, 0.0], "rewrite": [0.5, 0.9]}
    draw = np.random.default_rng(0)
    values = {m: np.repeat(np.array(v)[:, None], 12, axis=1) for m, v in flat.items()}
    values["es"][0] += draw.uniform(-0.05, 0.05, 12)
    choice = made_up(values).best_layer()
    assert (choice.layer, choice.metric, choice.as_good) == (0, "s", ())
    # the arithmetic means say the opposite: no fact has less at layer 1
    assert (sum(values[m][1] for m in ("es", "ps", "ns")) > sum(values[m][0] for m in ("es", "ps", "ns"))).all()


def test_a_layer_is_not_proposed_where_no_edit_does_more_than_none() -> None:
    nothing = made_up({"rewrite": np.full((2, 12), math.exp(-50.0)), "ns": np.full((2, 12), 0.8)})
    with pytest.raises(InputError, match="does not exceed the unedited model on the other half, neither by S"):
        nothing.best_layer()
    assert nothing.to_json()["proposal"]["withheld"].startswith("Layer 0, the best on half")
    two = made_up({"rewrite": np.full((2, 2), 0.5)})
    with pytest.raises(InputError, match="has 1 fact and gives no interval; sweep over more facts"):
        two.best_layer()


def test_one_subject_is_not_enough_to_choose() -> None:
    found = made_up({"rewrite": np.full((2, 1), 0.5)})
    with pytest.raises(InputError, match="two subjects"):
        found.best_layer()
    assert found.to_json()["proposal"]["withheld"].startswith("Choosing a layer")


def test_the_rewrite_score_is_the_share_of_what_was_missing() -> None:
    assert rewrite_score(0.5, 0.75) == 0.5
    assert rewrite_score(0.0, 1.0) == 1.0
    assert rewrite_score(0.5, 0.25) == -0.5
    assert rewrite_score(1.0, 1.0) == 0.0
    assert math.isfinite(rewrite_score(1.0, 0.5))


def test_data_frames_and_figures(model: Model, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    found = sweep(model, ASKED, layers=[0, 1], tokens=["subject_last", "last"], **FEW)
    frame = found.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == 12
    assert set(frame.columns) >= {"layer", "token", "fact", "relation", "subject", *CELL_METRICS}
    found.save(tmp_path / "sweep.json")
    assert json.loads((tmp_path / "sweep.json").read_text()) == json.loads(json.dumps(found.to_json()))
    pytest.importorskip("matplotlib")
    figure = found.plot(("rewrite", "s"))
    rewrite = found.values("rewrite").mean(axis=2)
    lines = figure.axes[0].get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), rewrite[:, 0])
    np.testing.assert_allclose(lines[1].get_ydata(), rewrite[:, 1])


def test_layers_are_spread_over_the_depth(model: Model) -> None:
    assert spread_layers(30, 4) == [0, 10, 19, 29]
    assert spread_layers(3) == [0, 1, 2]
    assert len(set(spread_layers(11))) == 10
    assert sweep(model, ASKED[:1], tokens=["subject_last"], **FEW).layers == (0, 1, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"facts": ()}, "no facts to sweep over"),
        ({"facts": (EIFFEL, EIFFEL)}, "Two facts have the id 'eiffel'"),
        ({"layers": [7]}, "no layer 7"),
        ({"layers": []}, "at least one layer"),
        ({"layers": [1, 1]}, "Each layer of a sweep stands once"),
        ({"tokens": ["subject_lst"]}, "Did you mean 'subject_last'"),
        ({"tokens": []}, "needs token roles"),
        ({"method": "rmoe"}, "Did you mean 'rome'"),
        ({"stepps": 3}, "no setting 'stepps'"),
        ({"shard": "1/2"}, "needs an output folder"),
    ],
)
def test_mistakes_are_named(model: Model, given: dict[str, Any], message: str) -> None:
    given = {"facts": ASKED, "layers": [1], "tokens": ["subject_last"]} | given
    with pytest.raises(InputError, match=message):
        sweep(model, **given)


def test_what_was_not_swept_is_not_there(model: Model) -> None:
    found = sweep(model, ASKED[:1], layers=[1], tokens=["subject_last"], **FEW)
    with pytest.raises(SettingError, match="Layer 2 was not swept"):
        found.estimate("es", 2, "subject_last")
    with pytest.raises(SettingError, match="token 'last' was not swept"):
        found.best_layer("last")
    with pytest.raises(SettingError, match="no metric 'ess'.*Did you mean 'es'"):
        found.values("ess")


@pytest.mark.slow
def test_smollm2_can_be_edited_at_the_last_subject_token() -> None:
    asked = with_probes(EIFFEL, ["The Eiffel Tower stands in"], [("The Colosseum is located in the city of", "Rome")])
    few: dict[str, Any] = {"contexts": ((10, 1),), "steps": 12, "covariance": "identity"}
    found = sweep(smollm2(), [asked], layers=[5, 29], tokens=("subject_last",), **few)
    assert found.values("es")[:, 0, 0].tolist() == [1.0, 0.0]  # the last layer is too late for the subject's token
    assert found.values("rewrite")[0, 0, 0] > 0.5
