"""The rules of memories against plain ones: the codebook, side memories, TIES, retrieval."""

from random import Random

import pytest
import torch

from oracles import textbook_memories as textbook
from palimpsest.edit.memories.codebook import Codebook
from palimpsest.edit.memories.retrieve import Bm25, cosines, encoded, words
from palimpsest.edit.memories.side import Side
from palimpsest.edit.memories.ties import random_masks, ties
from palimpsest.errors import EditError, InputError
from palimpsest.model import Site

SITE = Site("value", 1)


def book_of(key: list[float], radius: float = 1.0, label: str = "Rome") -> Codebook:
    double = torch.float64
    return Codebook(
        SITE,
        torch.tensor([key], dtype=double),
        torch.zeros(1, 3, dtype=double),
        torch.tensor([radius], dtype=double),
        (label,),
        (("first",),),
    )


@pytest.mark.parametrize("seed", range(8))
def test_a_codebook_grows_as_the_textbook_says(seed: int) -> None:
    draw = Random(seed)
    plain: list[textbook.Code] = []
    book = None
    for i in range(25):
        key, label = [draw.gauss(0, 1.5), draw.gauss(0, 1.5)], draw.choice("abc")
        radius = draw.choice((0.3, 1.0))
        textbook.add_code(plain, key, label, radius)
        if book is None:
            book = book_of(key, radius, label)
        else:
            book = book.grown(
                torch.tensor(key, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), radius, label, (str(i),)
            )
    assert book is not None
    assert [code.label for code in plain] == list(book.labels)
    assert book.keys.tolist() == [code.key for code in plain]
    assert book.radii.tolist() == pytest.approx([code.radius for code in plain], abs=1e-12)
    assert len(plain) < 25  # some expanded
    states = torch.randn(4, 30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 1.5
    before = torch.full((4,), -1)
    found = book.in_force(states, torch.ones(4, 30, dtype=torch.bool), before)
    assert found.tolist() == [textbook.codes_in_force(plain, row) for row in states]
    assert len(set(found.flatten().tolist())) > 3


def test_what_was_in_force_stays_and_padding_never_hits() -> None:
    book = book_of([0.0, 0.0])
    states = torch.tensor([[[9.0, 9.0], [0.0, 0.0]], [[9.0, 9.0], [9.0, 9.0]]], dtype=torch.float64)
    tokens = torch.tensor([[True, False], [True, True]])
    assert book.in_force(states, tokens, torch.tensor([-1, 0])).tolist() == [[-1, -1], [0, 0]]


def test_answers_are_compared_as_written_and_not_by_the_mean_of_their_tokens() -> None:
    """The published comparison takes "ab" and "ba" for one answer, and would expand here."""
    key = torch.tensor([0.5, 0.0], dtype=torch.float64)
    book = book_of([0.0, 0.0], label="ab").grown(key, torch.ones(3, dtype=torch.float64), 1.0, "ba", ("second",))
    assert book.labels == ("ab", "ba")
    assert book.radii.tolist() == pytest.approx([0.25 - 1e-5, 0.25])


def test_one_key_and_two_answers_are_refused() -> None:
    book, value = book_of([0.5, 0.0]), torch.ones(3, dtype=torch.float64)
    with pytest.raises(EditError, match="Two facts have one key and two answers: first answers 'Rome' where 'Paris'"):
        book.grown(book.keys[0], value, 1.0, "Paris", ("second",))
    same = book.grown(book.keys[0], value, 1.0, "Rome", ("second",))
    assert same.members == (("first", "second"),)
    with pytest.raises(EditError, match="one key and two answers"):
        book.plus(book_of([0.5, 0.0], label="Paris"))


def test_an_empty_memory_is_refused() -> None:
    with pytest.raises(EditError, match="empty codebook answers nothing"):
        Codebook(SITE, torch.zeros(0, 2), torch.zeros(0, 3), torch.zeros(0), (), ())
    with pytest.raises(EditError, match="is empty"):
        Side(SITE, torch.zeros(0, 2, 3), torch.zeros(0), ())


@pytest.mark.parametrize("density", [0.1, 0.53, 1.0])
def test_ties_is_the_textbook_one(density: float) -> None:
    generator = torch.Generator().manual_seed(1)
    changes = torch.randn(3, 6, 5, dtype=torch.float64, generator=generator)
    changes *= random_masks(3, (6, 5), 0.6, seed=0)
    expected = textbook.ties(list(changes), density)
    torch.testing.assert_close(ties(changes, density), expected)
    assert expected.any()


def test_masks_have_their_share_and_differ() -> None:
    masks = random_masks(2, (100, 100), 0.2, seed=3)
    assert masks.float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert (masks[0] & masks[1]).float().mean().item() == pytest.approx(0.04, abs=0.01)
    assert torch.equal(masks, random_masks(2, (100, 100), 0.2, seed=3))


def test_a_token_is_routed_as_the_textbook_says() -> None:
    generator = torch.Generator().manual_seed(2)
    deltas = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator)
    thresholds = torch.tensor([3.0, 4.0, 6.0], dtype=torch.float64)
    side = Side(SITE, deltas, thresholds, (("a",), ("b",), ("c",)))
    keys = torch.randn(2, 20, 4, dtype=torch.float64, generator=generator)
    change, beside, which = side.routed(keys)
    seen = set()
    for row in range(2):
        for t in range(20):
            value = torch.zeros(5, dtype=torch.float64)
            output, j = textbook.side_output(keys[row, t], value, deltas, thresholds)
            assert (float(beside[row, t]) > 1) == (j is not None)
            if j is not None:
                assert int(which[row, t]) == j
                torch.testing.assert_close(change[row, t], output)
            seen.add(j)
    assert None in seen
    assert len(seen) > 2


def test_bm25_is_the_textbook_one_and_1_for_the_text_itself() -> None:
    texts = ("The capital of Japan is", "The Eiffel Tower is located in the city of", "Danielle Darrieux speaks")
    split = [words(text) for text in texts]
    for prompt in ("Where is the Eiffel Tower?", "The capital of France", "nothing", texts[1]):
        scores = Bm25(texts).scores(prompt)
        own = [textbook.bm25(split, split[i], i) for i in range(3)]
        assert scores == pytest.approx([textbook.bm25(split, words(prompt), i) / own[i] for i in range(3)])
    assert Bm25(texts).scores(texts[1])[1] == pytest.approx(1)
    assert Bm25(texts).scores("nothing") == [0, 0, 0]


def test_cosines_are_measured_from_the_centre() -> None:
    stored = torch.tensor([[1.0, 1.0], [3.0, 1.0]])
    found = cosines(stored, torch.tensor([2.0, 2.0]), torch.tensor([2.0, 1.0]))
    assert found.tolist() == pytest.approx([0, 0])
    assert cosines(stored, torch.tensor([1.0, 1.0]), torch.zeros(2)).tolist()[0] == pytest.approx(1)


def test_an_encoder_must_give_rows() -> None:
    with pytest.raises(InputError, match="must give a tensor of 2 rows"):
        encoded(lambda texts: torch.zeros(1, 3), ["a", "b"])
