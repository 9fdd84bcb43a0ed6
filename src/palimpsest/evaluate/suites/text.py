"""Text: does the model still read ordinary prose as well as before?

For a passage of n tokens of which all but the first are predicted,

    text_nll           -(1 / (n - 1)) sum_t log p(x_t | x_<t), in nats a token
    text_perplexity    exp(text_nll)
    text_nll_rise      text_nll of the edited model - text_nll of the unedited one

    cases = passages(shipped_text())
    evaluate(model, cases, edit=edit, suite="text")

The mean of text_perplexity over passages is not the perplexity of the whole text, which is exp of the mean of text_nll where
passages have the same number of tokens; one bad passage can rule the former. ROME's script divides the sum by n and not by n
- 1, which makes short texts look better. A perplexity depends on the tokenizer, so it compares a model with itself, edited,
and not two models.
"""

import re
from collections.abc import Sequence
from math import exp, inf

from palimpsest.errors import InputError, SettingError
from palimpsest.evaluate.asks import Ask, Passage
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import lacks
from palimpsest.facts import Case

LARGEST = 709.0  # nats a token of a model that an edit broke, past which a perplexity is no float


class Text:
    """The suite, for passages."""

    name = "text"
    metrics = {
        "text_nll": Metric("nll a token of the passage", False, "nats"),
        "text_perplexity": Metric("exp(nll a token) of the passage", False),
        "text_nll_rise": Metric("text_nll less that of the unedited model", False, "nats", needs_before=True),
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """The passage."""
        if case.text is None:
            raise lacks(case, self.name, "text")
        return [Passage(case.text)]

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The three metrics; none of a passage of a single token."""
        now, old = (_nll(case, answers) for answers in (after, before))
        if now is None or old is None:
            return dict.fromkeys(self.metrics)
        return {"text_nll": now, "text_perplexity": exp(now) if now < LARGEST else inf, "text_nll_rise": now - old}


def passages(text: str, words: int = 60) -> tuple[Case, ...]:
    """A text as cases of so many words each, blanks as they are; what is left at the end is dropped, unless it is all there is.

    Words and not tokens, so that every model reads the same passages.

    Raises:
        InputError: the text has no word.
        SettingError: `words` is below 2.
    """
    if words < 2:
        raise SettingError(f"A passage needs at least 2 words, got {words}.")
    spans = [word.span() for word in re.finditer(r"\S+", text)]
    if not spans:
        raise InputError("The text to cut into passages is blank; give it words.")
    groups = [spans[place : place + words] for place in range(0, len(spans), words)]
    whole = [group for group in groups if len(group) == words] or groups
    pieces = (text[group[0][0] : group[-1][1]] for group in whole)
    return tuple(Case(f"passage/{number}", text=piece) for number, piece in enumerate(pieces, start=1))


def _nll(case: Case, answers: Answers) -> float | None:
    told = answers.passage(case.text or "")
    return told.nll / told.tokens if told.tokens else None
