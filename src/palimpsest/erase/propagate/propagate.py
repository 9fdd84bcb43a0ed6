"""An edit with its consequences, as one batch.

    made = propagate(model, [fact], read_rules("rules.json"), method="memit")
    made.plan.rows()          # what is written, and why
    made.guard                # what it cost the bystanders
    with made.edit.applied(model):
        ...

Facts form a graph: whoever moves the capital of France to Lyon says something of Lyon and of Paris too, and an editor that writes
one prompt says nothing of them (Cohen et al. 2024; Zhong et al. 2023). Here the consequences are derived (`derive`), with second
hops from the model itself (`ask`), and edits and consequences are written together, so that the solve sees all keys at once: a
batch method trades them off, where one edit after the other would let the last undo the first. The guard (`guard`) asks the
bystanders and leaves out what they cannot bear.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from palimpsest.edit.artefact import Edit
from palimpsest.edit.registry import Editor, editor
from palimpsest.erase.propagate.ask import GATE, plan
from palimpsest.erase.propagate.derive import LIMIT
from palimpsest.erase.propagate.guard import BYSTANDERS, Guard, bystanders, guard_of, kept
from palimpsest.erase.propagate.plan import Plan
from palimpsest.erase.propagate.rules import Rules
from palimpsest.errors import SettingError
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.runs import Progress

BAR = 0.03


@dataclass(frozen=True)
class Propagated:
    """Result of `propagate`: the edit, the plan it carries out, and what the bystanders said of it."""

    edit: Edit
    plan: Plan
    guard: Guard

    def to_json(self) -> dict[str, Any]:
        """Plan and guard as a plain dictionary; the edit has a file of its own."""
        return {"plan": self.plan.to_json(), "guard": self.guard.to_json()}


def propagate(
    model: Model,
    facts: Fact | Sequence[Fact] | Plan,
    rules: Rules | None = None,
    method: str | Editor = "memit",
    *,
    gate: float = GATE,
    limit: int = LIMIT,
    bar: float = BAR,
    most: int = BYSTANDERS,
    wordings: int = 1,
    layers: int | Sequence[int] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Propagated:
    """Write facts and what they entail.

    Args:
        model: left as it was.
        facts: the edits, or a plan that was made before (then `rules`, `gate` and `limit` are its own).
        rules: what follows from what.
        method: any editing method, best one for batches, such as "memit"; or an editor of `model` that is ready.
        gate, limit: see `plan`.
        bar: how much larger a share of the bystanders may be lost than by the edits alone.
        most: how many bystanders are asked at most; 0 for no guard.
        wordings: of an entailed fact, how many are written.
        layers, settings: of a method that is named.
        progress: called with (done, all, what).

    Raises:
        FactError, EditError: see `derive`.
        SettingError: a setting is out of range, or rules are missing.
    """
    if not 0 <= bar <= 1:
        raise SettingError(f"The bar of the guard must be a share from 0 to 1, got {bar}; 0.03 is usual.")
    if most < 0 or wordings < 1:
        raise SettingError(
            f"The guard needs most >= 0 bystanders and writing at least 1 of the wordings, got most={most} and "
            f"wordings={wordings}."
        )
    if isinstance(facts, Plan):
        made = facts
    elif rules is None:
        raise SettingError("Propagation needs rules; give those that read_rules reads, or a plan.")
    else:
        made = plan(model, facts, rules, gate=gate, limit=limit, progress=progress)
    writer = editor(model, method, layers=layers, progress=progress, **settings) if isinstance(method, str) else method
    return _guarded(model, writer, made, bar, most, wordings)


def _guarded(model: Model, writer: Editor, made: Plan, bar: float, most: int, wordings: int) -> Propagated:
    """The whole plan where the bystanders bear it, else without its deepest steps."""
    some = bystanders(model, made, most=most) if most else []
    judges = [one for one in some if not one.anchor]
    anchors = [one.fact() for one in some if one.anchor]
    edit = _written(writer, made, wordings, anchors)
    whole = kept(model, edit, judges)
    if sum(whole) >= (1 - bar) * len(judges):
        return Propagated(edit, made, guard_of(bar, judges, whole, None, 0))
    alone = kept(model, writer.edit(made.edits), judges)
    for depth in range(max((step.depth for step in made.steps), default=0), 0, -1):
        if sum(alone) - sum(whole) <= bar * len(judges):
            break
        made = made.without(depth)
        edit = _written(writer, made, wordings, anchors)
        whole = kept(model, edit, judges)
    dropped = sum(step.dropped and not step.already for step in made.steps)
    return Propagated(edit, made, guard_of(bar, judges, whole, alone, dropped))


def _written(writer: Editor, made: Plan, wordings: int, anchors: list[Fact]) -> Edit:
    """What the plan writes with the anchors beside it; the edits as they are where nothing is left of their consequences."""
    facts = made.facts(wordings)
    if len(facts) == len(made.edits):
        return writer.edit(facts)
    texts = {fact.text for fact in facts}
    return writer.edit([*facts, *(fact for fact in anchors if fact.text not in texts)])
