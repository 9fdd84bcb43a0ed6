"""What an editor is asked to write, checked before anything is computed.

contradiction   the same prompt and subject with two different new answers: refused, both facts named
same key        other prompts whose text up to the edited token is the same ("Japan is in", "Japan's capital is" at the last
                subject token): the memory W is asked to map one key to several values, so a batch would write their
                mean. Found by `same_keys`, and named in the edit
no-op           the model answers the new answer already: kept in the edit, reported, nothing is written for it
"""

from collections.abc import Sequence

from palimpsest.edit.keys import cut_after
from palimpsest.errors import EditError, FactError, InputError
from palimpsest.facts import Fact
from palimpsest.model import Model


def checked(facts: Sequence[Fact]) -> tuple[Fact, ...]:
    """`facts` as a tuple.

    Raises:
        EditError: there is none, two have one id, or two contradict each other.
        FactError: one has no `target_new`.
    """
    if not facts:
        raise EditError("There is no fact to edit; give at least one.")
    asked: dict[str, Fact] = {}
    ids: dict[str, Fact] = {}
    for fact in facts:
        if fact.target_new is None:
            raise FactError(f"The fact {fact.id} ({fact.text!r}) has no target_new; an edit needs the answer to write.")
        first = asked.setdefault(fact.text, fact)
        if first.target_new != fact.target_new:
            raise EditError(
                f"Two facts contradict each other: after {fact.text!r} the fact {first.id} asks for {first.target_new!r} and "
                f"{fact.id} for {fact.target_new!r}; keep one of them, or edit one after the other in a sequence."
            )
        if ids.setdefault(fact.id, fact) != fact:
            raise EditError(f"Two facts have the id {fact.id!r}; give each its own, so that notes can be told apart.")
    return tuple(facts)


def sorted_out(model: Model, facts: Sequence[Fact]) -> tuple[list[Fact], dict[str, str]]:
    """The facts an editor can write into this model, and for the id of each other one why it cannot.

    Left out is a fact with no `target_new`, one whose prompt or answer has no token, and one longer than the model's context.
    """
    able: list[Fact] = []
    unable: dict[str, str] = {}
    for fact in facts:
        if fact.target_new is None:
            unable[fact.id] = "It has no target_new, the answer to write."
            continue
        try:
            whole, begin = model.encode_answer(fact.text, fact.target_new)
        except InputError as error:
            unable[fact.id] = str(error)
            continue
        if 0 < begin < len(whole):
            able.append(fact)
        else:
            unable[fact.id] = "Its prompt or its new answer has no token."
    return able, unable


def same_keys(model: Model, facts: Sequence[Fact], token: str = "subject_last") -> list[list[int]]:
    """Facts by key: lists of indices of facts whose bare prompts are one and the same up to the edited token.

    Attention is causal, so equal tokens up to there give equal keys at every layer, in every context. Groups stand in the
    order of their first fact; most have one member.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, fact in enumerate(facts):
        groups.setdefault(cut_after(model, "", fact, token), []).append(i)
    return list(groups.values())
