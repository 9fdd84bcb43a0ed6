"""Words, and what free text says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.evaluate.words import begins, contains, equals, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The  Eiffel-Tower, in PARIS!", ("eiffel", "tower", "in", "paris")),
        ("Xi'an", ("xian",)),
        ("D.C.", ("dc",)),
        ("ﬁne Zürich 東京", ("fine", "zürich", "東京")),
        (" an a the ", ()),
    ],
)
def test_words(text: str, found: tuple[str, ...]) -> None:
    assert words(text) == found


@pytest.mark.parametrize(
    ("text", "answer", "exact", "first", "anywhere"),
    [
        (" Rome.", "Rome", True, True, True),
        (" Rome. It is old.", "Rome", True, True, True),
        (" Rome\nand more", "Rome", True, True, True),
        (" Rome", "Rome", True, True, True),
        (" Rome, Italy.", "Rome", False, True, True),
        (" the old Rome.", "Rome", False, False, True),
        (" Romes", "Rome", False, False, False),
        (" St. Louis. A city.", "St. Louis", True, True, True),
        (" Washington, D.C. is", "Washington D.C.", True, True, True),
        (" New York", "York New", False, False, False),
        (" the !", "!", False, False, True),
        ("", "Rome", False, False, False),
    ],
)
def test_what_a_text_says(text: str, answer: str, exact: bool, first: bool, anywhere: bool) -> None:
    assert (equals(text, answer), begins(text, answer), contains(text, answer)) == (exact, first, anywhere)


@given(st.text(max_size=40), st.text(min_size=1, max_size=10))
def test_the_strict_implies_the_lenient(text: str, answer: str) -> None:
    if words(answer):
        assert not equals(text, answer) or begins(text, answer)
        assert not begins(text, answer) or contains(text, answer)
        assert contains(f"{text} {answer} {text}", answer)
