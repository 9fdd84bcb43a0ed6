"""The budget attack against a plain reading of ranks and drawn texts."""

import numpy as np
import pytest
import torch

import palimpsest as pal
from oracles.residue import pair_of, world_pairs
from oracles.small import DARRIEUX, EIFFEL, JAPAN, model_of, with_probes
from palimpsest.erase.residue.pair import NEVER_KNOWN, SAME_ANSWER
from palimpsest.erase.residue.sampling import Sampling
from palimpsest.errors import SettingError, WeightError
from palimpsest.evaluate.answering import answer
from palimpsest.evaluate.words import begins
from palimpsest.model import Model
from palimpsest.model.unchanged import hooks_of, modes_of, same_weights, weights_of
from palimpsest.statistics.ranking import auroc

FACTS = (
    with_probes(EIFFEL, ["Where is the Eiffel Tower? In"], []),
    with_probes(JAPAN, ["The seat of Japan is"], []),
    DARRIEUX,
)
PAIRS = [pair_of(fact, str(fact.target_true), ("Rome", "Berlin")) for fact in FACTS]


def ranks_by_hand(model: Model, text: str, wanted: int) -> list[int]:
    """The rank of a token at the last position: of the output, and of each layer's state through the final norm and head."""
    ids = torch.tensor([model.encode(text).ids])
    with torch.no_grad():
        output = model.net(input_ids=ids, output_hidden_states=True)
        head, norm = model.net.get_output_embeddings(), model.net.get_submodule("transformer.ln_f")
        inner = [head(norm(state[0, -1])) for state in output.hidden_states[1:-1]]
    order = [torch.argsort(logits, descending=True).tolist() for logits in (output.logits[0, -1], *inner)]
    return [1 + one.index(wanted) for one in order]


def test_ranks_and_budgets_are_those_of_sorting_the_vocabulary() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    readout = Sampling(budgets=(1, 5, 100), layers=2, draws=False)
    table = readout.fit(model, PAIRS).read(model, PAIRS)
    assert [column.path for column in table.columns] == [
        f"{path} {what}" for path in ("output", "lens") for what in ("rank", "B=1", "B=5", "B=100")
    ]
    for pair, row in zip(PAIRS, table.scores, strict=True):
        ids, begin = model.encode_answer(pair.fact.text, pair.answer)
        output, *inner = ranks_by_hand(model, pair.fact.text, ids[begin])
        for best, scores in ((output, row[:4]), (min(inner[-2:]), row[4:])):
            assert scores[0] == pytest.approx(-np.log(best))
            assert scores[1:].tolist() == [float(best <= budget) for budget in (1, 5, 100)]


def test_the_last_layers_are_as_many_as_asked_for() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    pair = PAIRS[0]
    ids, begin = model.encode_answer(pair.fact.text, pair.answer)
    _, *inner = ranks_by_hand(model, pair.fact.text, ids[begin])
    for layers in (1, 2, 9):
        table = Sampling(budgets=(1,), layers=layers, draws=False).read(model, [pair])
        assert table.scores[0, 2] == pytest.approx(-np.log(min(inner[-layers:])))


def test_a_drawn_text_counts_where_it_begins_with_the_answer() -> None:
    model = model_of("gpt2")
    readout = Sampling(budgets=(1, 3, 6), tokens=4, top_k=5, wordings=2)
    asks = [readout._ask(PAIRS[0], number) for number in range(6)]
    assert [ask.text for ask in asks] == list(FACTS[0].wordings) * 3
    assert len({ask.seed for ask in asks}) == 6
    texts = [answer(model, [ask]).written(ask) for ask in asks]
    said = texts[3].strip()  # what the fourth draw says is what is looked for
    pair = pair_of(FACTS[0], said, ("Rome",))
    first = next(i for i, text in enumerate(texts) if begins(text, said))
    found = readout.read(model, [pair, PAIRS[1]]).scores[0, -3:]
    assert found.tolist() == [float(first < budget) for budget in (1, 3, 6)]
    assert found[2] == 1


def test_the_draws_depend_on_the_seed_and_not_on_the_company() -> None:
    model = model_of("gpt2")
    readout = Sampling(budgets=(4,), tokens=3)
    together = readout.read(model, PAIRS).scores
    assert np.array_equal(readout.read(model, PAIRS[1:]).scores[:, -1], together[1:, -1])
    other = [Sampling(seed=1)._ask(PAIRS[0], i).seed for i in range(4)]
    assert not set(other) & {readout._ask(PAIRS[0], i).seed for i in range(4)}


def test_the_model_comes_out_as_it_went_in() -> None:
    model = model_of("llama")
    before = weights_of(model), hooks_of(model), modes_of(model)
    Sampling(tokens=2).read(model, PAIRS)
    assert same_weights(model, before[0]) == ""
    assert (hooks_of(model), modes_of(model)) == before[1:]


def test_bad_budgets_and_states() -> None:
    with pytest.raises(SettingError, match="budget B must be a whole number of 1 or more, got 0"):
        Sampling(budgets=(1, 0))
    with pytest.raises(SettingError, match="at least one budget"):
        Sampling(budgets=())
    with pytest.raises(SettingError, match="layers must be a whole number of 1 or more, got 0"):
        Sampling(layers=0)
    model = model_of("gpt2")
    model.net.get_output_embeddings().weight.data[:] = float("nan")
    with pytest.raises(WeightError, match="not finite"):
        Sampling(draws=False).read(model, PAIRS)


def test_in_the_world_a_known_answer_stands_above_the_controls() -> None:
    model = pal.load("world")
    _, pairs = world_pairs(16)
    table = Sampling(budgets=(1, 5)).read(model, pairs)
    paths = [column.path for column in table.columns]
    # a relation of 14 professions is nearly covered by a budget of 5: the control shows it
    for control, least in ((SAME_ANSWER, 0.8), (NEVER_KNOWN, 0.7)):
        kept = [i for i, pair in enumerate(pairs) if pair.group in ("edited", control)]
        right = [float(pairs[i].group == "edited") for i in kept]
        for path in ("output rank", "lens rank", "sampled B=5"):
            assert auroc(table.scores[kept, paths.index(path)], right) > least
