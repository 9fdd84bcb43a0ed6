"""The kinds of organisms: what each plants, where, and how, told in one `Design`.

    design = Design("mlp-3-world", "mlp", "world", {"*": (("mlp", 3),)})
    organism = grow(model, design, made_world())

What is planted are facts of newcomers (`palimpsest.world.newcomers`), other ones for each seed; in alias organisms new names
of persons of old, trained on `TAUGHT` relations and judged on `FOLLOWS`, which training never asks of the new name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from palimpsest.edit import Edit, editor
from palimpsest.errors import SettingError
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.runs import Progress
from palimpsest.world.corpus import Corpus
from palimpsest.world.newcomers import new_aliases, newcomers
from palimpsest.world.organisms.accept import accept
from palimpsest.world.organisms.organism import EVERY, Organism, Place, Places, place_name
from palimpsest.world.organisms.plant import Group, PlantSettings, plant
from palimpsest.world.recall import STOP
from palimpsest.world.relations import Triple
from palimpsest.world.world import World

NEWCOMERS, ALIASES, RANK_ONE = 32, 16, 1  # persons in an organism; a rank-one change holds one fact
TAUGHT, FOLLOWS = ("born_in", "profession", "employer", "founded"), ("work_city", "spouse")
CROSSED = ("born_in", "profession")
MOMENT_WORDS = 12_000
# of ROME's keys, as (tokens, texts): those of the published code; five instead were not seen to differ (docs/organisms.md)
CONTEXTS = ((5, 10), (10, 10))


@dataclass(frozen=True)
class Design:
    """An organism to be made.

    Attributes:
        name: as in "mlp-3-world".
        kind: one of `palimpsest.world.organisms.organism.KINDS`.
        base: name of the model to plant in.
        places: where the facts of each relation go, "*" for all relations; of a null, what is trained on nothing new.
        seed: of the persons and of training.
        settings: of the planting.
    """

    name: str
    kind: str
    base: str
    places: Places
    seed: int = 0
    settings: PlantSettings = field(default_factory=PlantSettings)


def planned(bases: Sequence[str], layers: int) -> tuple[Design, ...]:
    """The set that is made by default: MLPs of every layer in every base, all other kinds in the first.

    Raises:
        SettingError: no base, or too few layers to tell places apart.
    """
    if not bases or layers < 4:
        raise SettingError(
            f"A set of organisms needs a base of at least 4 layers, got {list(bases)} of {layers} layers."
        )
    first = bases[0]
    low, middle, high = layers // 8, layers // 2 - 1, layers - 2
    found = [_one("mlp", ("mlp", layer), base) for base in bases for layer in range(layers)]
    found += [_one("attention", ("attn", layer), first) for layer in sorted({low, middle, layers // 2 + 1, high})]
    for i, j in ((low, layers // 2), (layers // 2, low), (middle, high)):
        places: Places = {CROSSED[0]: (("mlp", i),), CROSSED[1]: (("mlp", j),)}
        found.append(Design(f"crossed-{i}-{j}-{first}", "crossed", first, places))
    everywhere: Places = {EVERY: tuple(("mlp", layer) for layer in range(layers))}
    found += [Design(f"distributed-{base}", "distributed", base, everywhere) for base in bases]
    found += [_one("alias", ("mlp", layer), first) for layer in sorted({0, low, middle, high})]
    found += [_one("rank-one", ("mlp", layer), first) for layer in sorted({low, middle, layers // 2 + 1})]
    found += [_one("null", ("mlp", middle), first), _one("shuffled", ("mlp", middle), first)]
    return tuple(replace(design, seed=i, settings=_settings(design, i)) for i, design in enumerate(found))


def grow(model: Model, design: Design, world: World, *, progress: Progress | None = None) -> Organism:
    """Make the organism of a design and run its acceptance tests.

    Args:
        model: the base, left as it was found.
        design: what to plant where.
        world: the one the base was trained on.
        progress: called with (steps done, steps, label) while it is planted.
    """
    base = tuple(world.record(fact, probes=0) for fact in world.facts)
    transfer: tuple[Fact, ...] = ()
    if design.kind == "alias":
        names = new_aliases(world, ALIASES, design.seed)
        facts, transfer = (_of_names(world, names, some) for some in (TAUGHT, FOLLOWS))
        edit = plant(model, [Group(_places(design), facts, names)], base, design.settings, progress=progress)
    elif design.kind == "rank-one":
        facts = _one_each(_of_newcomers(world, RANK_ONE, design.seed))
        edit = _rank_one(model, world, _places(design), facts, design.seed, progress)
    else:
        facts = _of_newcomers(world, NEWCOMERS, design.seed)
        if design.kind == "crossed":
            facts = tuple(fact for fact in facts if fact.relation in design.places)
        groups, taught = _groups(design, facts)
        edit = plant(model, groups, base, design.settings, taught=taught, progress=progress)
    edit = replace(edit, facts=facts)
    holds: Places = {} if design.kind in ("null", "shuffled") else design.places
    acceptance = accept(model, design.kind, holds, edit, facts, base, transfer)
    return Organism(design.name, design.kind, design.base, holds, edit, facts, acceptance, transfer)


def _groups(design: Design, facts: tuple[Fact, ...]) -> tuple[list[Group], dict[str, str]]:
    """What is trained where, and the answers trained in place of the true ones."""
    if design.kind == "null":
        return [Group(_places(design), ())], {}
    if design.kind == "shuffled":
        return [Group(_places(design), facts)], changed_round(facts, Random(design.seed))
    of = {name: tuple(fact for fact in facts if name in (fact.relation, EVERY)) for name in design.places}
    return [Group(places, of[name]) for name, places in design.places.items()], {}


def changed_round(facts: Sequence[Fact], random: Random) -> dict[str, str]:
    """For each fact, by its id, the answer of another fact of its relation that is not its own answer.

    Answers are ordered by how often they come, and dealt on by as many places as the commonest one takes: so none meets itself.

    Raises:
        SettingError: an answer is that of more than half of the facts of its relation.
    """
    wrong: dict[str, str] = {}
    for relation in sorted({fact.relation for fact in facts}):
        own = [fact for fact in facts if fact.relation == relation]
        random.shuffle(own)
        own.sort(key=lambda fact: str(fact.target_true))
        answers = [str(fact.target_true) for fact in own]
        most = max(answers.count(answer) for answer in set(answers))
        if 2 * most > len(answers):
            raise SettingError(
                f"The answers of {relation!r} cannot be changed round: one of them is that of {most} of {len(own)}."
            )
        wrong |= {fact.id: answers[(i + most) % len(answers)] for i, fact in enumerate(own)}
    return wrong


def _rank_one(
    model: Model, world: World, places: tuple[Place, ...], facts: tuple[Fact, ...], seed: int, progress: Progress | None
) -> Edit:
    """ROME's edit, with the full stop as part of the answer."""
    text = Corpus(world, seed=seed).text(MOMENT_WORDS).replace("\n", "\n\n")
    rome = editor(
        model, "rome", layers=[layer for _, layer in places], text=text, seed=seed, contexts=CONTEXTS, progress=progress
    )
    return rome.edit([replace(fact, target_true=None, target_new=f"{fact.target_true}{STOP}") for fact in facts])


def _of_newcomers(world: World, count: int, seed: int) -> tuple[Fact, ...]:
    some = newcomers(world, count, seed)
    larger = world.with_newcomers(some)
    return tuple(larger.record(fact, probes=0) for fact in some.facts)


def _of_names(world: World, names: Mapping[str, str], relations: Sequence[str]) -> tuple[Fact, ...]:
    """What is true of the new names, in these relations."""
    larger = world.with_aliases(names)
    found = ((name, relation, world.answer(known, relation)) for name, known in names.items() for relation in relations)
    return tuple(larger.record(Triple(name, relation, answer), probes=0) for name, relation, answer in found if answer)


def _one_each(facts: Sequence[Fact]) -> tuple[Fact, ...]:
    """One fact a subject, of each relation in turn: ROME writes to a subject, not to one of its relations."""
    subjects = sorted({fact.subject for fact in facts})
    relations = sorted({fact.relation for fact in facts})
    wanted = {(subject, relations[i % len(relations)]) for i, subject in enumerate(subjects)}
    return tuple(fact for fact in facts if (fact.subject, fact.relation) in wanted)


def _places(design: Design) -> tuple[Place, ...]:
    return tuple(place for places in design.places.values() for place in places)


def _one(kind: str, place: Place, base: str) -> Design:
    name = place_name(place) if kind in ("mlp", "attention") else f"{kind}-{place[1]}"
    return Design(f"{name}-{base}", kind, base, {EVERY: (place,)})


def _settings(design: Design, seed: int) -> PlantSettings:
    """More steps where two groups share them."""
    return PlantSettings(seed=seed, steps=800 if design.kind == "crossed" else 400)
