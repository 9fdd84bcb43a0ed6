"""The world's own relations as rules: the entailments that `coherence` follows, in the format anybody can write.

    rules = world_rules(made_world())
    propagate(model, [fact], rules)            # second hops from the model
    write_rules(rules, "world-rules.json")

1-to-1 and symmetric relations become inverse and symmetric rules, a path or an implied relation a composition. Only seen
wordings are told, so that unseen ones stay a test. Of whom a relation holds is told (`subjects`), and what holds of them is not,
unless `facts` asks for it: then the world's base facts stand in the file as the user's own.
"""

from palimpsest.erase.propagate import Composition, Inverse, Rules, Statement
from palimpsest.erase.propagate import Relation as Told
from palimpsest.world.relations import relations
from palimpsest.world.world import World


def world_rules(world: World, *, facts: bool = False) -> Rules:
    """The rules of a world.

    Args:
        world: whose entities and aliases are told.
        facts: whether its base facts are told too.
    """
    told = {
        name: Told(
            name,
            tuple(wording.text for wording in relation.seen),
            nothing=f"no {relation.object}",
            subjects=world.entities[relation.subject],
        )
        for name, relation in relations().items()
    }
    rules: dict[str, Inverse | Composition] = {}
    for name, relation in relations().items():
        if relation.back is not None:
            rules.setdefault("/".join(sorted((name, relation.back))), Inverse(name, relation.back))
        if relation.path:
            rules[f"{name} by its path"] = Composition(relation.path, name)
        if relation.implies is not None:
            rules[f"{name} implies"] = Composition((name,), relation.implies)
    aliases: dict[str, list[str]] = {}
    for alias, name in world.aliases.items():
        aliases.setdefault(name, [name]).append(alias)
    known = tuple(Statement(*key, object) for key, object in sorted(world.base.items())) if facts else ()
    return Rules(told, tuple(rules.values()), tuple(map(tuple, aliases.values())), known)
