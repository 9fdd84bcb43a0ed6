"""Fine-tuning an edited model: the model is left alone, the training is the textbook's, and the arithmetic is by hand."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from oracles.small import DARRIEUX, EIFFEL, FACTS, documents, model_of, with_probes
from palimpsest.edit import edit
from palimpsest.errors import InputError, SettingError
from palimpsest.evaluate.persistence import Persistence, Retraining, persistence
from palimpsest.evaluate.suites.counterfact import counterfact_scores
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.model.unchanged import hooks_of, modes_of, same_weights, weights_of

FAST = Retraining(learning_rate=1e-2, batch=2, tokens=16, seed=3)
ASKED = [with_probes(fact, [f"They say {fact.subject}"], [("The Thames is in", "London")]) for fact in FACTS]


def run(model: Model, **settings: object) -> Persistence:
    made = edit(model, [EIFFEL], method="ft", layers=(1,), steps=5)
    chosen = {"steps": (1, 3), "text": documents(), "training": FAST} | settings
    return persistence(model, made, ASKED, **chosen)


@pytest.fixture(scope="module")
def model() -> Model:
    return model_of("gpt2")


@pytest.fixture(scope="module")
def found(model: Model) -> Persistence:
    return run(model)


def test_the_model_is_left_as_it_was(model: Model) -> None:
    made = edit(model, [EIFFEL], method="ft", layers=(1,), steps=5)
    before = weights_of(model), hooks_of(model), modes_of(model), torch.random.get_rng_state()
    persistence(model, made, ASKED, steps=(1,), text=documents(), training=FAST)
    assert same_weights(model, before[0]) == ""
    assert (hooks_of(model), modes_of(model)) == before[1:3]
    assert torch.equal(torch.random.get_rng_state(), before[3])
    assert model.applied == []


def test_at_no_step_it_is_the_edited_and_the_unedited_model(model: Model, found: Persistence) -> None:
    made = edit(model, [EIFFEL], method="ft", layers=(1,), steps=5)
    plain = counterfact_scores(model, ASKED)
    with made.applied(model):
        edited = counterfact_scores(model, ASKED)
    for arm, expected in (("edited", edited), ("control", plain)):
        records = found.scores[arm, 0].records
        assert [r["post"]["nll_new"] for r in records] == pytest.approx([e["nll_new"] for e in expected], abs=1e-4)
        assert [r["pre"]["nll_new"] for r in records] == pytest.approx([e["nll_new"] for e in plain], abs=1e-4)


def test_the_training_is_the_textbook_s(found: Persistence) -> None:
    """The same steps written out: blocks, order, AdamW on the mean loss of the next token, in train mode."""
    own = model_of("gpt2")
    own.net.requires_grad_(True)
    ids = torch.tensor(own.tokenizer(documents(), add_special_tokens=False)["input_ids"])
    blocks = ids[: len(ids) // 16 * 16].view(-1, 16)
    order = Random(3).sample(range(len(blocks)), len(blocks))
    optimiser = torch.optim.AdamW(own.net.parameters(), lr=1e-2, weight_decay=0.01)
    losses = []
    with torch.random.fork_rng():
        torch.manual_seed(3)
        own.net.train()
        for number in range(3):
            rows = blocks[order[2 * number : 2 * number + 2]]
            loss = own.net(input_ids=rows, labels=rows).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
    own.net.eval()
    own.net.requires_grad_(False)
    assert found.losses["control"] == pytest.approx(losses, abs=1e-5)
    expected = [scores["nll_new"] for scores in counterfact_scores(own, ASKED)]
    measured = [record["post"]["nll_new"] for record in found.scores["control", 3].records]
    assert measured == pytest.approx(expected, abs=1e-3)
    assert abs(measured[0] - found.scores["control", 0].records[0]["post"]["nll_new"]) > 0.01  # it did train


def test_differences_by_hand(found: Persistence) -> None:
    def values(arm: str, steps: int) -> np.ndarray:
        return np.array([record["post"]["em"] for record in found.scores[arm, steps].records])

    change = values("edited", 3) - values("edited", 0)
    drift = values("control", 3) - values("control", 0)
    for estimate, expected in ((found.change("em", 3), change), (found.beyond("em", 3), change - drift)):
        assert estimate is not None
        assert estimate.value == pytest.approx(expected.mean())
        assert estimate.n == len(FACTS)
    assert found.change("s", 3) is None
    assert found.estimate("s", 3) is not None


def test_the_same_seed_gives_the_same_numbers(model: Model, found: Persistence) -> None:
    again = run(model)
    assert again.losses == found.losses
    assert again.to_json()["steps"][2] == found.to_json()["steps"][2]


def test_half_precision_is_trained_in_float32() -> None:
    low = model_of("gpt2", dtype=torch.bfloat16)
    made = edit(low, [EIFFEL], method="random", layers=(1,))
    found = persistence(low, made, ASKED, steps=(1,), text=documents(), training=Retraining(1e-5, 0.01, 2, 16))
    gaps = [
        abs(a["post"]["nll_new"] - b["post"]["nll_new"])
        for a, b in zip(found.scores["control", 0].records, found.scores["control", 1].records, strict=True)
    ]
    assert 0 < max(gaps) < 0.1  # bfloat16 would round such a step away


def test_it_prints_and_saves(found: Persistence, tmp_path: Path) -> None:
    rows = found.table()
    assert {row["steps"] for row in rows} == {"0", "1", "3"}
    assert {row["metric"] for row in rows} >= {"es", "em", "s"}
    found.save(tmp_path / "results.json")
    stored = json.loads((tmp_path / "results.json").read_bytes())
    assert [row["steps"] for row in stored["steps"]] == [0, 1, 3]
    assert stored["settings"]["training"]["seed"] == 3
    assert len(stored["losses"]["edited"]) == 3
    with pytest.raises(SettingError, match="after 2 steps"):
        found.estimate("es", 2)


def test_a_case_that_cannot_be_asked_is_kept_with_its_error(model: Model) -> None:
    made = edit(model, [EIFFEL], method="random", layers=(1,))
    lacking = Fact(DARRIEUX.subject, DARRIEUX.prompt, "French")
    found = persistence(model, made, [ASKED[0], lacking], steps=(1,), text=documents(), training=FAST)
    assert list(found.to_json()["failed"]) == [lacking.id]
    assert found.to_json()["n"] == 1
    with pytest.raises(InputError, match="None of the 1 cases has what the suite counterfact asks"):
        persistence(model, made, lacking, steps=(1,), text=documents(), training=FAST)


def test_mistakes_are_named(model: Model) -> None:
    with pytest.raises(SettingError, match="whole numbers above 0"):
        run(model, steps=(0, 1))
    with pytest.raises(InputError, match="fewer than one batch of 2 blocks of 16; give a longer one"):
        run(model, text="Too short.")
    with pytest.raises(SettingError, match="learning rate must be a number above 0"):
        Retraining(learning_rate=0.0)
    with pytest.raises(SettingError, match="got batch=0"):
        Retraining(batch=0)
