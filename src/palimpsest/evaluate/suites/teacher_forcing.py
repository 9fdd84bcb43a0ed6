"""Teacher forcing: would each token of the new answer be the likeliest, given the true ones before it?

    tf_token_acc    share of the tokens of o* that are the likeliest after the prompt and the tokens of o* before them
    tf_exact        1 if all of them are
    p_...           the same, mean over paraphrases

tf_token_acc is the "rewrite accuracy" of EasyEdit (`evaluate_utils.py`) and zsRE's "efficacy"; tf_exact is the `_correct` of
MEMIT's scripts, which summaries then call accuracy. Both are shown the answer while they are asked for it: a model that
writes "Paris, France" where "Rome" was wanted may get half of a two-token answer right. They say more than a probability
comparison and less than free generation (the suite "generation"). An answer of one token has the same number in both.
"""

from collections.abc import Sequence

from palimpsest.evaluate.asks import Ask
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import exact, likelihoods, mean, new_answer, token_accuracy
from palimpsest.facts.case import Case


class TeacherForcing:
    """The suite, for facts with a new answer."""

    name = "teacher_forcing"
    metrics = {
        "tf_token_acc": Metric("share of the new answer's tokens that are the likeliest, the earlier ones given", True),
        "tf_exact": Metric("1 if every token of the new answer is the likeliest, the earlier ones given", True),
        "p_tf_token_acc": Metric("tf_token_acc, mean over paraphrases", True),
        "p_tf_exact": Metric("tf_exact, mean over paraphrases", True),
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """The new answer after every wording."""
        return likelihoods((text, new_answer(case.fact)) for text in case.fact.wordings)

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The four metrics."""
        new = new_answer(case.fact)
        shares = [token_accuracy(after, text, new) for text in case.fact.wordings]
        whole = [exact(after, text, (new,)) for text in case.fact.wordings]
        return {
            "tf_token_acc": shares[0],
            "tf_exact": float(whole[0]),
            "p_tf_token_acc": mean(shares[1:]),
            "p_tf_exact": mean(whole[1:]),
        }
