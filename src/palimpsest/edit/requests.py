"""What an editor is asked to write, checked before anything is computed.

contradiction   the same prompt and subject with two different new answers: refused, both facts named
same key        other prompts whose text up to the edited token is the same ("Japan is in", "Japan's capital is" at the last
                subject token): the memory W is asked to map one key to several values, so a batch would write their
                mean. Found by `same_keys`, and named in the edit
no-op           the model answers the new answer already: kept in the edit, reported, nothing is written for it
"""

from collections.abc import Sequence

from palimpsest.edit.keys import cut_after
from palimpsest.errors import EditError, FactError, PalimpsestError
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


def sorted_out(
    model: Model, facts: Sequence[Fact], *, answers: bool = True
) -> tuple[list[Fact], list[tuple[Fact, str]]]:
    """The facts that can be in an edit of this model, and each other one with the reason why it cannot.

    Looked at are the bare prompt and, where `answers`, the new answer: a method that puts texts before a prompt may still find it
    too long.
    """
    reasons = [(fact, (why_unwritable if answers else why_unreadable)(model, fact)) for fact in facts]
    return [fact for fact, why in reasons if not why], [(fact, why) for fact, why in reasons if why]


def why_unwritable(model: Model, fact: Fact) -> str:
    """Why a fact is in no edit that writes a new answer; "" where it can be in one."""
    if fact.target_new is None:
        return (
            f"The fact {fact.id} ({fact.text!r}) has no target_new, so it is in no edit; give it the answer to write."
        )
    return why_unreadable(model, fact)


def why_unreadable(model: Model, fact: Fact) -> str:
    """Why the tokenizer does not read a fact; "" where it does."""
    try:
        model.encode_answer(fact.text, fact.target_new or fact.text)
    except PalimpsestError as error:
        return str(error)
    except Exception as error:  # a tokenizer may raise anything; half a surrogate pair is enough
        return f"The tokenizer of {model.name} cannot read the fact {fact.id!a} ({error}), so it is in no edit."
    return ""


def same_keys(model: Model, facts: Sequence[Fact], token: str = "subject_last") -> list[list[int]]:
    """Facts by key: lists of indices of facts whose bare prompts are one and the same up to the edited token.

    Attention is causal, so equal tokens up to there give equal keys at every layer, in every context. Groups stand in the
    order of their first fact; most have one member.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, fact in enumerate(facts):
        groups.setdefault(cut_after(model, "", fact, token), []).append(i)
    return list(groups.values())
