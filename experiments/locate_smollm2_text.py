"""The words of docs/locate-on-smollm2.md.

Tables and most numbers come from results/locate/ when the page is made. Those in the remarks on what is seen in tables and figures are
written by hand and must be read again whenever the results change.
"""

from typing import Any

from locate_smollm2_page import (
    KINDS,
    LOG,
    P,
    best,
    by_length,
    controls,
    decisive,
    edges,
    est,
    load,
    named_sites,
    neurons,
    probes,
    reading,
    recurring,
    regression,
    reliability,
    separable,
    sites,
    totals,
    writing,
)


def text() -> str:
    facts, noise, swap = load("facts"), load("noise"), load("swap")
    failed = [name for name in swap["failed"] if name.startswith("state/")]
    lost: dict[str, int] = {
        part: len({n.split("/", 1)[1] for n in load(part)["withheld"]}) for part in ("noise", "swap")
    }
    early, early_cut = best("noise", "state", P, "last subject"), severed_at("state, mlp severed")
    attn_cut = severed_at("state, attn severed")
    samples = noise["maps"]["state"]["settings"]["samples"]
    level = noise["maps"]["state"]["settings"]["noise_level"]
    return f"""# Where smollm2's facts are read

Made by

    PALIMPSEST_RECORDS=... python experiments/locate_smollm2.py reliability noise swap shuffled lesion untrained syntax reasoning reading \\
        knockout reading-untrained
    PALIMPSEST_RECORDS=... python experiments/locate_smollm2.py neurons neurons-heldout neurons-pairs neurons-reasoning neurons-untrained
    python experiments/locate_smollm2.py page

{len(facts["ids"])} facts whose own prompt smollm2 completes right, of at most {facts["longest"]} tokens: 30 shipped ones (right on two of three
wordings) and 30 of known_1000, drawn over relations with a fixed seed. To fit two cores: every second layer, {samples} noise samples
(3 in the other parts). In brackets: 95 % intervals, bootstrap over relations and, within them, subjects. The noise has a standard
deviation of {level:.3f}, 3 times the spread of these subjects' embeddings. The early site (last subject token, layers 0 to 9) and the late
site (last token, layers 20 to 29) were named before any of these maps was looked at; the best layers in the tables were not, and
their intervals are too narrow.

## Total effects

{totals()}

In 20 of the 40 determiner-noun pairs the determiner is the last token, where an early and a late site would be one; only the
other 20, with an adjective between, are averaged. {len(failed)} facts could not be swapped, because no other subject of their relation in the two files has as many tokens
and another answer ({", ".join(name.split("/", 1)[1] for name in failed) or "none"}). Ratios to the total effect are withheld for {lost["noise"]}
facts under noise and {lost["swap"]} under swap, whose total effect is near zero. Effects themselves are averaged over all known facts.

## Average maps by token role

![restoration after noise](figures/locate-noise-maps.png)

![the same as lines with 95 % bands](figures/locate-noise-roles.png)

{sites("noise", KINDS)}

What is seen, and where it differs from the published shape of GPT-2 XL (Meng et al. 2022, figures 1 and 2):

* **There is an early site at the last subject token and a late site at the last token, as in GPT-2 XL.** The early one is broad, peaks at
  layer {early[0]} of 30 ({est(early[1], 2)} of a total effect of {est(noise["maps"]["state"][P]["average"]["total_effect"], 2)}), and is there from the first
  layer on; in GPT-2 XL it peaks at layer 15 of 48, a third of the way up.
* **MLP outputs matter lower down**: the best window is centred on layer {best("noise", "mlp", P, "last subject")[0]}, so it takes in the lowest
  layers; in GPT-2 XL it is centred on layer 17 of 48. The lowest MLPs see little but the token itself, so this may be the model
  spelling out a name more than recalling a fact.
* **Attention outputs matter late, at the last token**, centred on layer {best("noise", "attn", P, "last")[0]} ({est(best("noise", "attn", P, "last")[1], 2)}):
  {share_attn("noise")} of the total effect under noise, {share_attn("swap")} under swap, in one window. At the subject their effect is {est(best("noise", "attn", P, "last subject")[1], 3)}. In GPT-2 XL
  the best attention window at the last token restores about 43 % of the total effect (8.0 of 18.6 points).
* Tokens between subject and end carry next to nothing in single states.

## Severed paths

![states with later outputs held at their corrupted values](figures/locate-severed-roles.png)

Restoring the state at the last subject token at layer {early_cut[0]} gives {est(early_cut[1], 2)}; with all later MLP outputs at that token held at
their corrupted values {est(early_cut[2], 2)}; with all later attention outputs held, {est(attn_cut[2], 2)}. So most of what that state does passes
through later MLPs at the same token, as Meng et al. report, and little of it through later attention there. From about layer 14 on the
severed and the whole effect are alike: the MLPs have done their part by then.

## Noise against swap

![restoration after a swap](figures/locate-swap-maps.png)

![the same as lines](figures/locate-swap-roles.png)

{sites("swap", KINDS)}

Zhang and Nanda (2024) found a much weaker MLP peak under subject swaps than under noise in GPT-2 XL. Here the MLP peak at the last subject
token is {est(best("swap", "mlp", P, "last subject")[1], 2)} under swap and {est(best("noise", "mlp", P, "last subject")[1], 2)} under noise: no weaker. The two corruptions agree on
every site; under swap the attention window at the last token restores more.

## The named sites beside their controls

{named_sites()}

"Shuffled subject" restores the states of *another* subject of the relation. "Lesion" puts the value of another subject into the clean run:
the fall it causes. All are averages over the layers of the site.

{controls()}

Random sites are as many layers of a random role, the same for all facts; p counts how often one of 199 does as well as the named site.
The MLPs at the last token and attention at the subject do not pass it under restoration.

{untrained()}

## Lesions: what the clean run needs

![lesions by interchange](figures/locate-lesion-maps.png)

{sites("lesion", KINDS)}

A lesion and a restoration of one site need not agree, and here they do not everywhere. MLP outputs at the last token are *needed*
(a lesion of the best window takes {est(best("lesion", "mlp", P, "last")[1], 2)} away) though restoring them brings back only {est(best("swap", "mlp", P, "last")[1], 2)}; so are attention outputs at
the last subject token ({est(best("lesion", "attn", P, "last subject")[1], 2)} against {est(best("swap", "attn", P, "last subject")[1], 2)}). They work on what other sites bring, and cannot do it alone. The first subject
tokens matter in the clean run in the lowest layers ({est(best("lesion", "state", P, "first subject")[1], 2)} at layer 0), before the last one has gathered the name.

## Which token decides

The share of facts whose largest effect, the last token left out, stands at a token of each role; Wilson intervals.

{decisive()}

For attention outputs the effects before the last token are small everywhere, so "decisive" there is often the largest of near-zeros.
Subjects of three tokens or more have their decisive token in the middle in a quarter (states) to a third (MLP outputs) of the cases:
where a name ends in a common word, the token that gives it away comes before the last.

Does attention matter more for long subjects? The effect in the early layers (0 to 9), as a share of the total effect:

{by_length()}

Yes, as a need and not as a restoration. Restoring attention outputs at the subject brings back next to nothing whatever its length. A
lesion of them at the last subject token costs a one-token subject {lesion_share("1")} of the total effect, a two-token one {lesion_share("2")},
and longer ones {lesion_share("3 or more")}: where the name is longer than a token, attention has to bring its parts together, and MLP
outputs restored without them, or they without the MLPs, are not enough.

## How many noise samples

The reliability of a fact's map (ICC over its cells, two-way random, single rater; Spearman-Brown for the mean of S), 12 of the facts:

{reliability()}

Ten samples give every state map and all but {bad_mlp()} of 12 MLP maps a reliability of 0.75 or more in probability; the maps that need more are
those of facts with a small total effect. That is the default. For averages over many facts, facts differ far more than samples do, and 3 or 4
samples are enough.

## Facts beside syntax and reasoning

![facts, determiner-noun pairs and reasoning](figures/locate-facts-and-syntax.png)

{separable()}

The depth difference is the centre of the late site minus that of the early one as a share of the network; overlap is 0 where no layer has both.
The same instrument finds an early site at the determiner and a late one at the last token for agreement too, which no one calls a stored
fact: the shape of such a map is not evidence of storage. But the two sites are less separable there (overlap 0.33 against 0.13 for facts, same
score): in the figure the hand-over begins at layer 14 and passes through the adjective ("next"), where for facts it happens between the
mapped layers 22 and 24. Reasoning looks like facts.

## Knowledge neurons

{recurring()}

{neurons()}

Drift is the relative change of the answer's probability, flips the share of prompts whose likeliest token changes. "random" are sets
with as many neurons in each layer, "other" the neurons of a fact of another relation, "elsewhere" the fact's own neurons on facts of
other relations. When this was measured, "elsewhere" could hold facts of the relation that "other" comes from, so the rows "other, elsewhere"
are not all unrelated; the code draws from third relations now. What is seen:

* Suppressing a fact's own neurons breaks its answer, far beyond random sets of the same size. In "neurons" they were chosen on the same
  wordings; "neurons-heldout" finds them on two wordings and cuts them on the others, and most of the damage remains.
* **Many of them are not the fact's own.** The neurons of a fact of another relation do a third of the damage, and a fact's own do as much
  to unrelated facts. A few neurons of the last layers and one of layer 0 are kept for fact after fact.
* Flips and drift tell different stories: amplifying a fact's own neurons doubles its probability, and flips one prompt in nine.
* Determiner-noun pairs go through the same instrument. There the probabilities are small and drift is unstable; the column to read is the
  last: suppressing a pair's own neurons turns good and bad word around in three quarters of the prompts, another pair's in one of
  ten. With 4 clusters (paradigms) those intervals mean little, and "elsewhere" is another paradigm of the same phenomenon.
* A re-initialised model also yields "neurons", because the threshold is relative: suppressing those moves a probability of one in 50,000 by a
  fifth, and flips no more than the interval of 6 facts allows for.

{writing()}

So what these neurons write, read directly, is not the answer, though their own fact's answer stands higher among it than another's.
Reading a column through the unembedding leaves out what later layers make of it.

{regression()}

The text is small, so the co-occurrence term rests on the few facts that meet their answer in it.

## Lens, probes and attention knock-out

{reading()}

Lens: the answer when a state is read through the final norm and head; the control are answers of other facts of the relation. The answer
becomes readable at the last token in the top layers only, and never at the subject.

{probes()}

Probes: the answer predicted from the state of the last subject token, after layer l. "New subjects" are held out whole, against the best
constant guess; "new wordings" are other wordings of subjects the probe has seen, against a control task with permuted answers. Answers
can be read off states of new subjects from the first layers on, which for places and professions may be the name alone; on new
wordings the control task does almost as well, so that accuracy is mostly recognising the subject. The re-initialised model is at chance
for new subjects.

{edges()}

Knock-out: the relative change of the answer's probability when the last token may not attend to these positions in a window of layers around
the centre. In 31 of the 60 facts the subject is the first thing in the prompt and takes with it the first token, which many heads park their
attention on; they are kept apart. "Random" are as many other tokens; only facts that have so many are in that contrast.

**The subject reaches the last token at layer 23.** Where the subject comes later in the prompt, all windows of 9 that contain that layer do
the same damage and the others next to none; blocked there alone, in one layer of 30, the answer loses 58 % of its probability, and at
no other layer shown more than 7 %. (The layer was found on these facts, so the figure wants confirming on others.) It is the
layer where, in the maps above, the answer's site moves from the subject to the last token. The other tokens (the relation)
matter earlier, around layers 9 to 15.
"""


def severed_at(label: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """The plain best layer of the early site, its effect, and the severed effect there."""
    l, plain = best("noise", "state", P, "last subject")
    cut = load("noise")["maps"][label][P]["average"]
    i, own = cut["layers"].index(l), cut["roles"]["last subject"]
    return l, plain, {"value": own["mean"][i], "low": own["low"][i], "high": own["high"][i]}


def untrained() -> str:
    """What tracing finds in a model that knows nothing."""
    facts = load("untrained")["maps"]["state"]["facts"]
    known, largest = sum(fact["known"] for fact in facts), max(fact["total_effect"] for fact in facts)
    return (
        f"On a re-initialised smollm2 {known} of {len(facts)} facts are known, so nothing is averaged; the largest total effect of "
        f"any of them is {largest:.1e}, and all ratios are withheld."
    )


def lesion_share(length: str) -> str:
    """The lesion of attention outputs at the last subject token, early layers, as a share of the total effect."""
    return est(load("lesion")["maps"]["attn"][P]["early_share_by_length"][length]["last subject"], 2)


def share_attn(part: str) -> str:
    """The best attention window at the last token as a share of the total effect."""
    total = load(part)["maps"]["attn"][P]["average"]["total_effect"]["value"]
    return f"{best(part, 'attn', P, 'last')[1]['value'] / total:.0%}"


def bad_mlp() -> int:
    """MLP maps whose reliability at ten samples is below 0.75."""
    own = [f for f in load("reliability")["facts"] if f["kind"] == "mlp" and f["score"] == P]
    return sum(f["icc_k"]["10"] < 0.75 for f in own)


__all__ = ["LOG", "text"]
