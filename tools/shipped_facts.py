"""Make the facts that ship with palimpsest: the tables of `shipped_facts_data`, expanded, one fact a line.

    python tools/shipped_facts.py                  # writes src/palimpsest/facts/data/shipped.jsonl
    python tools/shipped_facts.py elsewhere.jsonl

Every choice (the new answer, the neighbours, the far facts) is drawn with a generator seeded by the name of the fact
and of the choice, so a run writes the same bytes each time and a new row disturbs the other facts as little as it can.
The wordings are this project's own; no benchmark text is involved.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import shipped_facts_data as data

from palimpsest.facts.fact import Fact, Probe

SEED = 0
MOST_PER_RELATION = 40
OUTPUT = Path(__file__).resolve().parents[1] / "src" / "palimpsest" / "facts" / "data" / "shipped.jsonl"

# Country names that need an article, which the prompt then ends with; such rows make probes, never facts.
WITH_ARTICLE = frozenset(
    {"United States", "United Kingdom", "Netherlands", "Philippines", "Czech Republic", "United Arab Emirates"}
)

Row = tuple[str, ...]


@dataclass(frozen=True)
class Relation:
    """How one column of one table becomes facts.

    Args:
        name: the relation, and the first half of each id.
        table: name of the table in the data module.
        column: the column of the answer (0 is the subject).
        topics: what the relation is about; a far fact shares none of them.
        wordings: prompts with one `{}`; the first is the prompt, the rest are paraphrases. At least one has the
            subject before the words of the relation and at least one has it after them.
        openings: beginnings of free text about the subject.
        entailed: (prompt with `{}` for the subject, look-up from an answer to what follows from it).
        reverse: prompts with `{}` for an answer that ask for its subject; only where each answer has one subject.
    """

    name: str
    table: str
    column: int
    topics: frozenset[str]
    wordings: tuple[str, ...]
    openings: tuple[str, ...]
    entailed: tuple[tuple[str, Mapping[str, str]], ...] = ()
    reverse: tuple[str, ...] = ()


def rows(table: str) -> list[Row]:
    """The records of a table of the data module, each a tuple of its fields."""
    lines = getattr(data, table).strip().splitlines()
    return [tuple(part.strip() for part in record.split("|")) for line in lines for record in line.split(";")]


def answers_of(field: str) -> tuple[str, ...]:
    """The answer of a field and then its other spellings; empty for a field that is left out."""
    return () if field == "-" else tuple(part.strip() for part in field.removeprefix("~").split("/"))


def look_up(table: str, source: int, target: int) -> dict[str, str]:
    """A dictionary from one column of a table to another, by the first spelling of each."""
    pairs = ((answers_of(row[source]), answers_of(row[target])) for row in rows(table))
    return {key[0]: value[0] for key, value in pairs if key and value}


CAPITAL = look_up("COUNTRIES", 0, 1)
CONTINENT = look_up("COUNTRIES", 0, 2)
LANGUAGE = look_up("COUNTRIES", 0, 3)
STATE_CAPITAL = look_up("STATES", 0, 1)
LANDMARK_COUNTRY = look_up("LANDMARKS", 1, 2)
LANDMARK_CONTINENT = {city: CONTINENT[country] for city, country in LANDMARK_COUNTRY.items() if country in CONTINENT}
AUTHOR_COUNTRY = look_up("AUTHORS", 0, 1)
AUTHOR_LANGUAGE = look_up("AUTHORS", 0, 2)

COUNTRY_OPENINGS = ("{} is known for", "A visitor to {} soon learns that")
PERSON_OPENINGS = ("{} is remembered for", "As a child, {}")

# A table, kept as one reads it: the formatter would give each wording a line of its own.
# fmt: off
RELATIONS = (
    Relation(
        "capital", "COUNTRIES", 1, frozenset({"place"}),
        ("The capital of {} is", "{} is a country whose capital is", "The capital of {} is the city of",
         "The capital city of {} is", "Country: {}. Capital:"),
        COUNTRY_OPENINGS,
        reverse=("{} is the capital of", "The country whose capital is {} is"),
    ),
    Relation(
        "continent", "COUNTRIES", 2, frozenset({"place"}),
        ("{} is a country on the continent of", "Of all the continents, {} lies on the continent of",
         "On a world map, you find {} on the continent of", "Country: {}. Continent:",
         "The continent on which {} lies is"),
        COUNTRY_OPENINGS,
    ),
    Relation(
        "language", "COUNTRIES", 3, frozenset({"place", "language"}),
        ("The official language of {} is", "{} is a country whose official language is",
         "Country: {}. Official language:", "The language spoken by most people in {} is"),
        COUNTRY_OPENINGS,
        entailed=(("The newspapers of {} are mostly printed in", {answer: answer for answer in LANGUAGE.values()}),),
    ),
    Relation(
        "currency", "COUNTRIES", 4, frozenset({"place", "money"}),
        ("The basic unit of money in {} is the", "{}'s currency is the", "The currency of {} is the",
         "{} has a currency called the"),
        COUNTRY_OPENINGS,
        entailed=(("Shops in {} give change in the local money, the", {a: a for a in look_up("COUNTRIES", 4, 4)}),),
    ),
    Relation(
        "city_country", "CITIES", 1, frozenset({"place"}),
        ("The city of {} is in the country of", "The country in which {} lies is", "{} is located in the country of",
         "{} belongs to the country of"),
        ("{} is known for", "The first thing a traveller sees in {} is"),
        entailed=(("The capital of the country in which {} lies is the city of", CAPITAL),
                  ("The continent on which {} lies is the continent of", CONTINENT),
                  ("The official language in the city of {} is", LANGUAGE)),
    ),
    Relation(
        "city_state", "STATE_CITIES", 1, frozenset({"place"}),
        ("The city of {} is in the state of", "The state in which the city of {} lies is the state of",
         "On a map of America, the city of {} is in the state of", "{} is a city in the state of"),
        ("{} is known for", "The first thing a traveller sees in {} is"),
        entailed=(("The capital of the state in which {} lies is the city of", STATE_CAPITAL),),
    ),
    Relation(
        "state_capital", "STATES", 1, frozenset({"place"}),
        ("The capital of the state of {} is", "The capital of the state of {} is the city of",
         "{} has its state capital in the city of", "The state capital of {} is"),
        ("{} is known for", "People who live in {} often"),
        reverse=("{} is the capital of the state of",),
    ),
    Relation(
        "landmark_city", "LANDMARKS", 1, frozenset({"place"}),
        ("The {} is located in the city of", "The city in which the {} stands is the city of",
         "On the map, the {} is in the city of", "Tourists who want to see the {} travel to the city of"),
        ("The {} is known for", "Every year, visitors to the {}"),
        entailed=(("The country in which the {} stands is the country of", LANDMARK_COUNTRY),
                  ("The continent on which the {} stands is the continent of", LANDMARK_CONTINENT)),
    ),
    Relation(
        "dish_country", "DISHES", 1, frozenset({"place", "food"}),
        ("The country of origin of {} is", "The dish {} comes from the country of", "The country that {} comes from is",
         "Dish: {}. Country of origin:"),
        ("The best way to serve {} is", "People who taste {} for the first time"),
        entailed=(("The capital of the country that {} comes from is the city of", CAPITAL),
                  ("The continent that {} comes from is the continent of", CONTINENT)),
    ),
    Relation(
        "company_country", "COMPANIES", 1, frozenset({"place", "company"}),
        ("The headquarters of {} are in the country of", "{} is a company from the country of",
         "The country in which {} is based is", "Company: {}. Country:"),
        ("{} is known for", "Last year, {} announced"),
        entailed=(("The capital of the home country of {} is the city of", CAPITAL),
                  ("The home continent of {} is the continent of", CONTINENT)),
    ),
    Relation(
        "birth_country", "PEOPLE", 1, frozenset({"place", "person"}),
        ("{} was born in the country of", "The birthplace of {} is in the country of",
         "The country in which {} was born is", "The native country of {} is"),
        PERSON_OPENINGS,
        entailed=(("The capital of the country in which {} was born is the city of", CAPITAL),
                  ("The continent on which {} was born is the continent of", CONTINENT)),
    ),
    Relation(
        "profession", "PEOPLE", 2, frozenset({"person", "art", "science"}),
        ("The occupation of {} was that of a", "{} earned a living as a", "{} worked as a", "By profession, {} was a"),
        PERSON_OPENINGS,
        entailed=(("The field in which {} worked was that of", look_up("PROFESSIONS", 0, 1)),),
    ),
    Relation(
        "sport", "PEOPLE", 3, frozenset({"person", "sport"}),
        ("{} became a legend in the sport of", "The sport that {} plays is the sport of", "{} played professional",
         "{} was a champion in the sport of"),
        PERSON_OPENINGS,
        entailed=(("The place where {} competed is called a", look_up("SPORTS", 0, 1)),),
    ),
    Relation(
        "author", "BOOKS", 1, frozenset({"art", "person"}),
        ("{} was written by", "{} is a famous work by", "Title: {}. Author:", "The author of {} is"),
        ("{} is a story about", "Readers who open {} for the first time"),
        entailed=(("The author of {} was born in the country of", AUTHOR_COUNTRY),
                  ("The language in which the author of {} wrote was", AUTHOR_LANGUAGE)),
    ),
    Relation(
        "symbol", "ELEMENTS", 1, frozenset({"science"}),
        ("The chemical symbol for {} is", "The element {} is represented by the symbol", "Element: {}. Symbol:",
         "In the periodic table, the symbol for {} is"),
        ("The element {} is used in", "Chemists first learned that {}"),
        reverse=("The element whose chemical symbol is {} is",),
    ),
    Relation(
        "organ_system", "ORGANS", 1, frozenset({"body", "science"}),
        ("The {} is part of the body system called the", "The {} is an organ of the",
         "The body system that includes the {} is the", "The {} works as part of the"),
        ("The {} is needed for", "When the {} is injured,"),
    ),
    Relation(
        "mythology", "DEITIES", 1, frozenset({"myth"}),
        ("{} is a deity in ancient", "The mythology that includes {} is the ancient",
         "Stories about {} are part of ancient", "{} is a figure from ancient"),
        ("{} was worshipped because", "In the old stories, {}"),
        entailed=(("The ancient people who told stories about {} were the", look_up("MYTHOLOGIES", 0, 1)),),
    ),
)
# fmt: on

# Prompts about the other columns of a table: facts of the same subject that an edit must leave alone.
ATTRIBUTES: Mapping[str, Mapping[int, str]] = {
    "COUNTRIES": {
        1: "The capital of {} is",
        2: "{} is a country on the continent of",
        3: "The official language of {} is",
        4: "The basic unit of money in {} is the",
    },
    "CITIES": {2: "Among other things, {} is famous for its"},
    "STATE_CITIES": {2: "Among other things, {} is famous for its"},
    "STATES": {2: "Among other things, {} is famous for its"},
    "LANDMARKS": {3: "Building work on the {} began in the century called the"},
    "DISHES": {2: "The main ingredient of {} is"},
    "COMPANIES": {2: "{} is best known for selling"},
    "PEOPLE": {
        1: "{} was born in the country of",
        2: "The occupation of {} was that of a",
        3: "{} became a legend in the sport of",
        4: "{} was famous for playing the",
    },
    "BOOKS": {2: "As a piece of writing, {} is a"},
    "ELEMENTS": {2: "At room temperature, the element {} is a"},
    "ORGANS": {2: "The {} is found in the part of the body called the"},
    "DEITIES": {2: "{} is the deity of"},
}
# Columns of people that say nearly the same thing, so that an edit of one may coherently move the other.
BOUND_TOGETHER = frozenset({2, 3, 4})


def generator(*names: str) -> random.Random:
    """A generator of its own for each named choice."""
    return random.Random("\0".join((str(SEED), *names)))


def emitted(relation: Relation) -> list[tuple[str, tuple[str, ...]]]:
    """The subjects that make facts of a relation, each with its answer and the other spellings of it."""
    pairs = [(row[0], row[relation.column]) for row in rows(relation.table)]
    return [(subject, answers_of(field)) for subject, field in pairs if field != "-" and not field.startswith("~")]


def filled(template: str, subject: str, *answers: str | None) -> str | None:
    """The prompt for a probe; None where its answers need different endings (one an article, the other none)."""
    articles = {answer in WITH_ARTICLE for answer in answers if answer}
    if len(articles) > 1:
        return None
    text = template.replace("{}", subject)
    return f"{text} the" if articles == {True} and not text.endswith(" the") else text


def names_it(text: str, answer: str) -> bool:
    """Whether the text holds the answer as a whole word."""
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) is not None


def kind_of(relation: Relation, answer: str) -> str:
    """Answers of one kind can be true of one subject at a time; a new answer is taken from another kind."""
    return data.KINDS.get(relation.name, {}).get(answer, answer)


def new_answer(relation: Relation, subject: str, answers: Sequence[str]) -> str:
    """Another answer of the relation that is not true of the subject and does not begin like the old one.

    Where the relation has consequences, an answer is preferred from which something follows that the old one denies.
    """

    def word(text: str) -> str:
        return text.split()[0].casefold()

    shut = {word(answer) for answer in answers} | {word(other) for other in data.ALSO_TRUE.get(subject, ())}
    kinds = {kind_of(relation, answer) for answer in answers}
    pool = sorted({other[0] for _, other in emitted(relation)})
    pool = [
        other
        for other in pool
        if word(other) not in shut
        and kind_of(relation, other) not in kinds
        and not names_it(f"{subject} {' '.join(relation.wordings)}", other)
    ]
    telling = [other for other in pool if entailed(relation, subject, answers[0], other)]
    return generator(relation.name, subject, "new").choice(telling or pool)


def neighbours(relation: Relation, subject: str, answer: str, new: str) -> tuple[Probe, ...]:
    """The relation at four other subjects: those with the old answer first, none with the new one."""
    draw = generator(relation.name, subject, "neighbours")
    others = [(other, answers[0]) for other, answers in emitted(relation) if other != subject and answers[0] != new]
    draw.shuffle(others)
    others.sort(key=lambda pair: pair[1] != answer)
    chosen = [pair for pair in others if subject not in pair[0] and pair[0] not in subject][:4]
    wordings = [relation.wordings[index % 2] for index in range(len(chosen))]
    return tuple(
        Probe(wording.replace("{}", other), answer=its, subject=other)
        for wording, (other, its) in zip(wordings, chosen, strict=True)
    )


def same_subject(relation: Relation, row: Row, new: str) -> tuple[Probe, ...]:
    """Up to three facts of the subject in other columns of its table."""
    probes = []
    for column, template in ATTRIBUTES.get(relation.table, {}).items():
        if column == relation.column or (relation.table == "PEOPLE" and {column, relation.column} <= BOUND_TOGETHER):
            continue
        answers = answers_of(row[column])
        text = filled(template, row[0], *answers[:1])
        if answers and text and not names_it(text, answers[0]) and new not in answers:
            probes.append(Probe(text, answer=answers[0]))
    generator(relation.name, row[0], "same subject").shuffle(probes)
    return tuple(probes[:3])


def entailed(relation: Relation, subject: str, answer: str, new: str) -> tuple[Probe, ...]:
    """What follows from the new answer where that differs from what followed from the old one."""
    probes = []
    for template, consequence in relation.entailed:
        after, before = consequence.get(new), consequence.get(answer)
        text = filled(template, subject, after, before)
        if after and before and after != before and text:
            probes.append(Probe(text, answer=after, before=before))
    holders = [row[0] for row in rows(relation.table) if answers_of(row[relation.column])[:1] == (new,)]
    for template in relation.reverse if len(holders) == 1 else ():
        text = filled(template, new, subject, holders[0])
        if text:
            probes.append(Probe(text, answer=subject, before=holders[0]))
    return tuple(probes)


def far(relation: Relation, subject: str, answer: str, new: str) -> tuple[Probe, ...]:
    """Two facts, of two relations, that share no topic with this one and name neither its subject nor its answers."""
    draw = generator(relation.name, subject, "far")
    others = [other for other in RELATIONS if not other.topics & relation.topics and emitted(other)]
    probes = []
    for other in draw.sample(others, 2):
        pool = [
            (its_subject, answers[0])
            for its_subject, answers in emitted(other)
            if not any(names_it(f"{its_subject} {answers[0]}", word) for word in (subject, answer, new))
        ]
        its_subject, its_answer = draw.choice(pool)
        probes.append(Probe(other.wordings[0].replace("{}", its_subject), answer=its_answer, subject=its_subject))
    return tuple(probes)


def make_facts() -> list[Fact]:
    """All facts, in the order of the relations and of the rows of their tables."""
    facts = []
    for relation in RELATIONS:
        by_subject = {row[0]: row for row in rows(relation.table)}
        chosen = emitted(relation)
        if len(chosen) > MOST_PER_RELATION or len(by_subject) != len(rows(relation.table)):
            raise SystemExit(f"{relation.name}: {len(chosen)} facts or a subject that stands twice in {relation.table}")
        for subject, (answer, *aliases) in chosen:
            new = new_answer(relation, subject, (answer, *aliases))
            facts.append(
                Fact(
                    subject=subject,
                    prompt=relation.wordings[0],
                    target_true=answer,
                    target_new=new,
                    id=f"{relation.name}/{re.sub(r'[^a-z0-9]+', '-', subject.casefold()).strip('-')}",
                    relation=relation.name,
                    answer_aliases=tuple(aliases),
                    paraphrases=tuple(wording.replace("{}", subject) for wording in relation.wordings[1:]),
                    neighbours=neighbours(relation, subject, answer, new),
                    same_subject=same_subject(relation, by_subject[subject], new),
                    entailed=entailed(relation, subject, answer, new),
                    far=far(relation, subject, answer, new),
                    generation=tuple(Probe(opening.replace("{}", subject)) for opening in relation.openings),
                )
            )
    return facts


def render(facts: Sequence[Fact]) -> str:
    """The text of the file: one fact in JSON a line."""
    return "".join(json.dumps(fact.to_json(), ensure_ascii=False) + "\n" for fact in facts)


def main() -> None:
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    facts = make_facts()
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render(facts), encoding="utf-8", newline="\n")
    print(f"{output}: {len(facts)} facts of {len({fact.relation for fact in facts})} relations")


if __name__ == "__main__":
    main()
