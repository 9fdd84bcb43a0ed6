"""The explanation graph: how an edge is drawn, and paths from input to output."""

from dataclasses import replace

from artefact_cases import FACTS, SETTING, drawn, edge, edge_rows, estimated, record

from palimpsest.audit.artefacts import graph
from palimpsest.audit.evidence import Control
from palimpsest.audit.experiments.edges import EDGES, Edges


def test_styles():
    assert drawn([edge("S-mlp->S-state", 0.3)], "S-mlp", "S-state")["style"] == "solid"
    assert drawn([edge("S-mlp->S-state", 0.02)], "S-mlp", "S-state")["style"] == "dashed"
    assert drawn([edge("S-mlp->S-state", -0.2, -0.1)], "S-mlp", "S-state")["style"] == "refuted"
    assert drawn([edge("S-mlp->S-state", 0.3, mode="observational")], "S-mlp", "S-state")["style"] == "dashed"
    assert drawn([edge("S-mlp->S-state", 0.3, split="discovery")], "S-mlp", "S-state")["style"] == "untested"
    null = Control("N1", estimated(0.5))
    assert drawn([edge("S-mlp->S-state", 0.3, controls=(null,))], "S-mlp", "S-state")["style"] == "dashed"
    insane = Control("N6", estimated(0.0), sane=False)
    assert drawn([edge("S-mlp->S-state", 0.3, controls=(insane,))], "S-mlp", "S-state")["style"] == "dashed"
    labelled = drawn([edge("S-state->F-state (attention)", 0.3)], "S-state", "F-state")
    assert (labelled["label"], labelled["evidence"]) == ("attention", ["test/edge/S-state->F-state (attention)"])


def test_double_asks_for_independent_families():
    first, other = edge("S-mlp->S-state", 0.3), edge("S-mlp->S-state", 0.3, experiment="else", family="weights")
    assert drawn([first, other], "S-mlp", "S-state")["style"] == "double"
    assert drawn([first, replace(other, family="causal")], "S-mlp", "S-state")["style"] == "solid"
    assert drawn([first, replace(other, depends_on=(first.id,))], "S-mlp", "S-state")["style"] == "solid"


def test_storage_edge_asks_for_an_instrument_that_sees_storage():
    removed = record("lesion-weights", 0.3, family="weights")
    assert graph([removed])["queries"]["storage"] == "dashed"
    assert graph([removed, record("sensitivity", 0.5, 0.9, level="instrument")])["queries"]["storage"] == "dashed"
    seen = graph([removed, record("sensitivity", 0.8, 0.9, level="instrument")])
    assert seen["queries"]["storage_solid"]
    assert graph([record("sensitivity", 0.8, 0.9)])["queries"]["storage"] == "untested"


def test_path_from_input_to_output():
    whole = [edge("subject->S-mlp", 0.3), edge("S-mlp->S-state", 0.3), edge("S-state->output", 0.3)]
    found = graph(whole)
    assert found["queries"]["path"] == ["subject", "S-mlp", "S-state", "output"]
    assert found["sentences"][0].startswith("Solid edges lead from input to output: tokens of the subject to MLP")
    assert not graph(whole[:2])["queries"]["solid_path"]
    assert not graph([*whole[:2], edge("S-state->output", 0.01)])["queries"]["solid_path"]
    assert graph([record("restoration", 0.5)])["queries"]["path"] == ["subject", "S-mlp", "output"]


def test_edges_as_the_experiment_concludes_them_and_none_in_an_untrained_model():
    found = graph(Edges().conclude(SETTING, FACTS, {"edges": edge_rows()}))
    solid = {(one["source"], one["target"]) for one in found["edges"] if one["style"] == "solid"}
    assert {("S-mlp", "output"), ("S-state", "F-state"), ("F-state", "output")} <= solid
    assert found["queries"]["false_edges"] == 0
    assert "0 edges came out solid" in found["sentences"][2]
    haunted = graph(Edges().conclude(SETTING, FACTS, {"edges": edge_rows(untrained=1.0)}))
    assert haunted["queries"]["false_edges"] == len(EDGES)
    assert not [one for one in haunted["edges"] if one["style"] == "solid"]
