"""Organisms: models of the world in which facts were planted in a place we chose."""

from palimpsest.world.organisms.accept import accept
from palimpsest.world.organisms.kinds import Design, grow, planned
from palimpsest.world.organisms.make import load_organisms, make_organisms
from palimpsest.world.organisms.organism import Acceptance, Organism, Place
from palimpsest.world.organisms.places import all_places, grafted, weights_of
from palimpsest.world.organisms.plant import Group, PlantSettings, plant

__all__ = [
    "Acceptance",
    "Design",
    "Group",
    "Organism",
    "Place",
    "PlantSettings",
    "accept",
    "all_places",
    "grafted",
    "grow",
    "load_organisms",
    "make_organisms",
    "plant",
    "planned",
    "weights_of",
]
