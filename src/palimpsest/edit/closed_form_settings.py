"""Settings that every method that solves for its edit has: see `palimpsest.edit.closed_form`."""

from dataclasses import dataclass

from palimpsest.edit.keys import TOKENS, WEIGHTINGS
from palimpsest.edit.search import ValueSettings
from palimpsest.edit.settings import one_of, whole
from palimpsest.errors import SettingError


@dataclass(frozen=True)
class ClosedFormSettings:
    """Settings that every closed form has.

    Attributes:
        preset: the name these settings began from.
        layers: whose down-projections are changed, ascending; the model's default when None.
        token: which token carries the edit; a role of `keys.TOKENS`.
        site: where values are searched: "value", the output of the down-projection (one layer only), or "resid_out".
        key: which key stands for a fact: "mean" over contexts, "halves" (half bare, half mean of the others), or "bare".
        contexts: (tokens, number) of the texts put before the prompt; the bare prompt always is one.
        openings: words those texts begin with; the model's start token when empty.
        covariance: "measured" second moments, or "identity" (C = I).
        moment_tokens: tokens for C; ten times the key width when None.
        spread: share of what is missing that a layer takes: 1 over the layers left ("even"), or 1 over their root ("root").
        batch: facts written together; all of them when None.
        same_key: facts that share a key get one value together ("merge"), one each ("keep"), or are refused ("refuse").
        memory: whether later batches protect the keys of earlier ones.
        values: settings of the value search.
        seed: of the contexts.
    """

    preset: str = "fixed"
    layers: tuple[int, ...] | None = None
    token: str = "subject_last"
    site: str = "resid_out"
    key: str = "halves"
    contexts: tuple[tuple[int, int], ...] = ((10, 5),)
    openings: tuple[str, ...] = ("The", "Therefore", "Because", "I", "You")
    covariance: str = "measured"
    moment_tokens: int | None = None
    spread: str = "even"
    batch: int | None = None
    same_key: str = "merge"
    memory: bool = False
    values: ValueSettings = ValueSettings()
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("A closed form", "token", self.token, TOKENS)
        one_of("A closed form", "site", self.site, ("value", "resid_out"))
        one_of("A closed form", "key", self.key, WEIGHTINGS)
        one_of("A closed form", "covariance", self.covariance, ("measured", "identity"))
        one_of("A closed form", "spread", self.spread, ("even", "root"))
        one_of("A closed form", "same_key", self.same_key, ("merge", "keep", "refuse"))
        for name in ("batch", "moment_tokens"):
            if getattr(self, name) is not None:
                whole("A closed form", name, getattr(self, name), 1)
        for pair in self.contexts:
            if not (isinstance(pair, tuple) and len(pair) == 2):
                raise SettingError(f"The contexts are pairs (tokens, number of texts), got {self.contexts!r}.")
            for name, number in zip(("tokens of a context", "number of contexts"), pair, strict=True):
                whole("A closed form", name, number, 1)
