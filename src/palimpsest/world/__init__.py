"""A small made world whose every fact, entailment and symmetry is known, and models that know it."""

from palimpsest.world.corpus import Corpus
from palimpsest.world.knowledge import WorldKnowledge, perplexity, world_knowledge
from palimpsest.world.newcomers import new_aliases, newcomers
from palimpsest.world.recall import recalls
from palimpsest.world.recipes import RECIPES, Recipe
from palimpsest.world.relations import Relation, Wording, relations
from palimpsest.world.train import train_model
from palimpsest.world.world import Triple, World, made_world

__all__ = [
    "RECIPES",
    "Corpus",
    "Recipe",
    "Relation",
    "Triple",
    "Wording",
    "World",
    "WorldKnowledge",
    "made_world",
    "new_aliases",
    "newcomers",
    "perplexity",
    "recalls",
    "relations",
    "train_model",
    "world_knowledge",
]
