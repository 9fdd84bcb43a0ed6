"""What follows from an edit of the world: the cases by hand, and the laws for any edit."""

from dataclasses import astuple

from hypothesis import given, settings
from hypothesis import strategies as st
from test_world import WORLD, assert_coherent

from palimpsest.world.consequences import Change
from palimpsest.world.relations import relations
from palimpsest.world.world import Triple

SHARED = tuple(name for name, relation in relations().items() if relation.form == "n-to-1" and not relation.path)


@st.composite
def edits(draw: st.DrawFn, names: tuple[str, ...] = tuple(relations())) -> Triple:
    """Any edit that makes sense, whether there was an answer before or not, and whether it changes it or not."""
    relation = relations()[draw(st.sampled_from(names))]
    subject = draw(st.sampled_from(WORLD.entities[relation.subject]))
    new = draw(st.sampled_from([name for name in WORLD.entities[relation.object] if name != subject]))
    return Triple(subject, relation.name, new)


@given(edits())
@settings(max_examples=80, deadline=None)
def test_every_fact_is_in_one_class_and_bystanders_never_move(edit: Triple) -> None:
    found, after = WORLD.consequences(*edit), WORLD.after(*edit)
    stay = (*found.same_subject, *found.neighbours, *found.far)
    says, then = {fact[:2]: fact.object for fact in WORLD.facts}, {fact[:2]: fact.object for fact in after.facts}
    assert all(says[s, r] == o == then[s, r] for s, r, o in stay)
    assert all(change.before != change.after for change in found.entailed)
    assert all((says.get((s, r)), then.get((s, r))) == (old, new) for s, r, old, new in map(astuple, found.entailed))

    asked = [fact[:2] for fact in stay] + [(change.subject, change.relation) for change in found.entailed]
    assert len(asked) == len(set(asked))
    assert edit[:2] not in asked
    assert {*asked, edit[:2]} == {*says, *then}

    assert all(fact.subject == edit.subject for fact in found.same_subject)
    assert all(fact.relation == edit.relation and fact.subject != edit.subject for fact in found.neighbours)
    assert all(fact.relation != edit.relation and fact.subject != edit.subject for fact in found.far)
    shares = [fact.object == WORLD.answer(*edit[:2]) for fact in found.neighbours]
    assert shares == sorted(shares, reverse=True)


@given(st.lists(edits(), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_world_stays_coherent_over_any_edits(some: list[Triple]) -> None:
    world = WORLD
    for edit in some:
        world = world.after(*edit)
        assert world.answer(*edit[:2]) == edit.object
        assert_coherent(world)


@given(st.lists(edits(), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_an_edit_holds_and_to_make_it_twice_is_to_make_it_once(some: list[Triple]) -> None:
    world = WORLD
    for edit in some:
        world = world.after(*edit)
        assert world.answer(*edit[:2]) == edit.object
        assert world.after(*edit) == world
    assert world.consequences(*some[-1]).entailed == ()


@given(edits(SHARED))
@settings(max_examples=80, deadline=None)
def test_an_answer_that_many_may_share_can_be_put_back(edit: Triple) -> None:
    old = WORLD.answer(*edit[:2])
    assert old is not None
    back = WORLD.after(*edit).after(edit.subject, edit.relation, old)
    if edit.relation == "city_country" and old != edit.object:
        capital = WORLD.answer(old, "capital")
        if capital == edit.subject:  # what it was the capital of has none now, and to move it back makes it none
            assert set(WORLD.facts) - set(back.facts) == {
                Triple(old, "capital", edit.subject),
                Triple(edit.subject, "capital_of", old),
            }
            return
    assert back == WORLD


@given(edits(("landmark_city",)))
@settings(max_examples=40, deadline=None)
def test_a_landmark_takes_its_country_from_its_city(edit: Triple) -> None:
    landmark, _, city = edit
    before, after = WORLD.answer(landmark, "landmark_country"), WORLD.answer(city, "city_country")
    expected = (Change(landmark, "landmark_country", before, after),) if before != after else ()
    assert WORLD.consequences(*edit).entailed == expected


@given(edits(("spouse", "sister_city")))
@settings(max_examples=40, deadline=None)
def test_a_symmetric_relation_moves_both_ends_and_frees_the_old_partners(edit: Triple) -> None:
    one, relation, other = edit
    left, deserted = WORLD.answer(one, relation), WORLD.answer(other, relation)
    found = WORLD.consequences(*edit).entailed
    if left == other:
        assert found == ()
    else:
        assert left is not None
        assert deserted is not None
        assert set(found) == {
            Change(other, relation, deserted, one),
            Change(left, relation, one, None),
            Change(deserted, relation, other, None),
        }


@given(edits(("headquarters",)))
@settings(max_examples=20, deadline=None)
def test_who_works_for_a_company_works_where_it_is(edit: Triple) -> None:
    company, _, city = edit
    staff = {fact.subject for fact in WORLD.facts if fact.relation == "employer" and fact.object == company}
    old = WORLD.answer(company, "headquarters")
    expected = {Change(person, "work_city", old, city) for person in staff} if old != city else set()
    assert set(WORLD.consequences(*edit).entailed) == expected


@given(edits(("founder",)))
@settings(max_examples=20, deadline=None)
def test_a_company_has_one_founder_who_founded_one_company(edit: Triple) -> None:
    company, _, person = edit
    old, other = WORLD.answer(company, "founder"), WORLD.answer(person, "founded")
    if old == person:
        return
    expected = {Change(person, "founded", other, company), Change(str(old), "founded", company, None)}
    if other is not None:
        expected.add(Change(other, "founder", person, None))
    assert set(WORLD.consequences(*edit).entailed) == expected
    assert WORLD.after(*edit) == WORLD.after(person, "founded", company)


def test_a_city_that_becomes_the_capital_moves_into_the_country() -> None:
    country, other = WORLD.entities["country"][:2]
    old, new = str(WORLD.answer(country, "capital")), str(WORLD.answer(other, "capital"))
    landmarks = {fact.subject for fact in WORLD.facts if fact.relation == "landmark_city" and fact.object == new}
    assert set(WORLD.consequences(country, "capital", new).entailed) == {
        Change(old, "capital_of", country, None),
        Change(other, "capital", new, None),
        Change(new, "capital_of", other, country),
        Change(new, "city_country", other, country),
        *(Change(landmark, "landmark_country", other, country) for landmark in landmarks),
    }
    after = WORLD.after(country, "capital", new)
    assert after == WORLD.after(new, "capital_of", country)
    assert after.answer(old, "city_country") == country  # it lies where it lay


def test_a_capital_that_leaves_its_country_is_no_longer_its_capital() -> None:
    country, other = WORLD.entities["country"][:2]
    city = str(WORLD.answer(country, "capital"))
    after = WORLD.after(city, "city_country", other)
    assert after.answer(country, "capital") is None
    assert after.answer(city, "capital_of") is None
    assert after.answer(other, "capital") == WORLD.answer(other, "capital")


def test_an_edit_of_a_derived_fact_leaves_open_which_step_changed() -> None:
    landmark = WORLD.entities["landmark"][0]
    city, country = WORLD.answer(landmark, "landmark_city"), WORLD.answer(landmark, "landmark_country")
    assert city is not None
    new = next(name for name in WORLD.entities["country"] if name != country)
    assert WORLD.consequences(landmark, "landmark_country", new).entailed == (
        Change(landmark, "landmark_city", city, None),
    )
    after = WORLD.after(landmark, "landmark_country", new)
    assert after.answer(landmark, "landmark_country") == new
    assert after.answer(city, "city_country") == country  # of which only other facts speak
    assert after.after(landmark, "landmark_city", city) == WORLD  # once the city is told, the country follows again


def test_a_derived_fact_that_holds_already_changes_nothing() -> None:
    person = WORLD.entities["person"][3]
    city = WORLD.answer(person, "work_city")
    assert city is not None
    assert WORLD.after(person, "work_city", city) == WORLD


def test_an_alias_can_be_edited_by() -> None:
    alias, name = next((a, n) for a, n in WORLD.aliases.items() if WORLD.kind_of(n) == "person")
    city = next(c for c in WORLD.entities["city"] if c != WORLD.answer(name, "born_in"))
    assert WORLD.after(alias, "born_in", city) == WORLD.after(name, "born_in", city)
    assert WORLD.consequences(alias, "born_in", city) == WORLD.consequences(name, "born_in", city)
