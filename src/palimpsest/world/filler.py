"""Plain sentences about nothing: what stands before facts in the training text, and between them.

    filler(Random(0))      # 'Early in the spring the two small boats came back to the river.'

They name no entity of the world and no relation, so that no fact can be learnt from them. They are made of a small grammar,
so that a model of a few million parameters spends little on them, and still sees facts at many places of a text.
"""

from random import Random

TIMES = (
    "Every morning",
    "Late in the summer",
    "Early in the spring",
    "After the long rain",
    "On the first day of the week",
    "Before the cold winter",
    "When the sun was low",
    "Some years ago",
    "In the old days",
    "At the end of the day",
    "Now and then",
    "For many weeks",
)
WHO = (
    "the children",
    "a few travellers",
    "the two small boats",
    "an old friend of ours",
    "the people on the hill",
    "three tired horses",
    "the birds by the water",
    "my neighbour and his dog",
    "the young farmers",
    "a group of visitors",
    "the wind",
    "everybody in the house",
)
DID = (
    "came back to",
    "walked slowly around",
    "stayed close to",
    "looked for a way to",
    "told stories about",
    "rested beside",
    "went past",
    "sang songs about",
    "found a path to",
    "waited near",
    "moved across",
    "dreamt of",
)
WHERE = (
    "the river",
    "the green hills",
    "a quiet garden",
    "the narrow road",
    "the edge of the forest",
    "the wide lake",
    "an empty field",
    "the market square",
    "the stone wall",
    "the white gate",
    "a small wooden bridge of no name",
    "the far side of the valley",
)
OPENINGS = ("Therefore", "Because of that", "But then", "Of course", "They say that", "You see,", "I think that", "The")
BARE = {"The": ("weather was fine", "days were long", "tea was still warm", "letters came late", "bread was fresh")}


def filler(random: Random) -> str:
    """One sentence, with its full stop."""
    kind = random.random()
    if kind < 0.6:
        start = random.choice(TIMES)
        return f"{start} {random.choice(WHO)} {random.choice(DID)} {random.choice(WHERE)}."
    if kind < 0.9:
        start = random.choice(OPENINGS)
        if start in BARE:
            return f"{start} {random.choice(BARE[start])} {random.choice(TIMES).lower()}."
        return f"{start} {random.choice(WHO)} {random.choice(DID)} {random.choice(WHERE)}."
    who = random.choice(WHO)
    return f"{who[0].upper()}{who[1:]} {random.choice(DID)} {random.choice(WHERE)} {random.choice(TIMES).lower()}."
