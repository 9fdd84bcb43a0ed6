"""Overwrite: an edit that writes the new answer *and* takes the old one away where it is readable. A method of this project.

The old text shows through an edit where the value that was written leaves it room: the answer's likelihood is maximised, the old
answer's is not minimised, and only after the prompt of the record and random prefixes. Overwrite is MEMIT (Meng et al. 2023) whose
values are searched with two more demands,

    L(delta) = -log p(o*)                      mean over contexts and over wordings held in (`held_in` of the fact's paraphrases)
             + suppression                     the old answer no more readable than its rivals, layer by layer (`suppression`)
             + kl_factor * KL + decay * ...    as in MEMIT

and whose closed form then writes them at the least cost to ordinary keys, over the same layers. Wordings that are held in must not
judge the edit: they are noted in it (`settings["held_in"]`), and `residue` reads others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from palimpsest.edit.defaults import Default, defaults
from palimpsest.edit.methods.memit import Memit, MemitSettings
from palimpsest.edit.search import Term
from palimpsest.edit.settings import whole
from palimpsest.erase.overwrite.suppression import Suppression
from palimpsest.facts import Fact


@dataclass(frozen=True)
class OverwriteSettings(MemitSettings):
    """Settings of overwriting: those of MEMIT, of the suppression, and how many wordings are held in.

    Attributes:
        held_in: so many of each fact's paraphrases that hold the subject once are optimised too, in the order of the record.
        suppression: the second demand.
    """

    held_in: int = 1
    suppression: Suppression = Suppression()

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("Overwriting", "held_in", self.held_in, 0)


class Overwrite(Memit):
    """Overwriting on one model; see `ClosedForm` for its arguments and `edit`.

    Layers and search are MEMIT's for the model where it has none of its own.
    """

    name, title = "overwrite", "Overwriting"
    published = ()
    presets = {
        "fixed": OverwriteSettings(),
        "memit": OverwriteSettings(preset="memit", held_in=0, suppression=Suppression(suppress=0.0)),
    }
    settings: OverwriteSettings

    def _usual(self, preset: str) -> Default:
        own = defaults(self.model, self.name)
        return own if own.known else defaults(self.model, "memit")

    def _asked(self, facts: Sequence[Fact], groups: list[list[int]]) -> tuple[Sequence[Fact], list[list[int]]]:
        """The facts, and behind each group the wordings held in."""
        everything = list(facts)
        wider = []
        for group in groups:
            more = [wording for i in group for wording in self._held_in(facts[i])]
            wider.append([*group, *range(len(everything), len(everything) + len(more))])
            everything += more
        return everything, wider

    def _term(self) -> Term | None:
        return self.settings.suppression if self.settings.suppression.suppress else None

    def _held_in(self, fact: Fact) -> list[Fact]:
        """The fact in other wordings."""
        templates = [text.replace(fact.subject, "{}") for text in fact.paraphrases if text.count(fact.subject) == 1]
        some = [template for template in templates if template.count("{}") == 1][: self.settings.held_in]
        return [
            replace(fact, prompt=template, paraphrases=(), id=f"{fact.id}/{i}") for i, template in enumerate(some, 1)
        ]
