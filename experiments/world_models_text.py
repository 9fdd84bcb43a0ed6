"""The words of docs/world-models.md; the numbers in its tables come from results/world."""

TEXT = {
    "intro": """Made by

    palimpsest world train NAME --out DIR
    python experiments/world_models.py recall && python experiments/world_models.py map && python experiments/world_models.py page

for each model; they ship in the package. Recall is exact and greedy: every token of the answer and the full stop after it must be the model's
first choice. All 1,256 facts are asked in all twelve wordings, none is left out. Brackets are 95 % intervals that resample relations and, within
them, subjects. Perplexity is that of a token of 300 held-out documents of the same kind, of which names and fillers are drawn at random.""",
    "recall": """Asked for were 0.98 on seen and 0.80 on unseen wordings. The unseen wordings of the relations that end in "is" were changed once, by
a rule and not by their results: where a seen wording of the relation ends in "is called", a model may answer "is" with "called Dresval", which is right and
counted as wrong, so they end in "is called" as well. With the first wording an earlier training of `world` (its 2,000th of 3,000 steps) had recalled
0.78 of the unseen ones, with the second 0.87. What misses now are wordings whose words other relations share.

`world-llama` is the same world in a Llama architecture. `world-plain` read each fact in one wording only (another one for each fact), and as many tokens: it answers
every fact in its own wording, {other} of them in the other wordings that training used (for other facts), and 0.34 in the unseen ones. The facts are stored and cannot be got at, as Allen-Zhu and Li
(2023, *Physics of language models*, part 3.1) found of biographies told in one way. For an instrument or an edit that is a test of its
own: what it finds in `world-plain` is storage without extraction.""",
    "relations": """The models that read all wordings fail at different relations: which unseen wording is misread is a matter of the training run, not of the world.""",
    "maps": """Average indirect effects of restoring one layer (no windows) after subject noise, over 60 known facts, relation after relation, the same facts in three
kinds of wording.""",
    "after maps": """The early site of real models, states at the **last** subject token that bring the answer back, does not appear in either model: in `world` no
layer restores more than 0.02 of a total effect of 0.94 to 0.98 there, in `world-llama` no more than 0.04 of 0.91 to 0.94, in any kind of wording, relation-first and
long ones included.

`world-llama` has an early site all the same, sooner in the name: the states of the **middle** subject tokens bring back 0.23 to 0.37 in layers 0 to 2, and in
relation-first prompts those of the **first** subject token 0.35 to 0.38; both fade by layer 5, and the last token takes over from layer 3 on (0.9 from layer 5). These are
the two sites of Meng et al., with the name gathered before its end: a made-up name is known by its first tokens, and this model need not wait for the last.
In `world` no token of the subject brings back more than 0.11: what it knows of a name is spread over several tokens, no one of which is enough, and is put together at
the last token of the prompt, by attention in layers 4 to 7 and MLPs from there on, and in layer 0. So which token carries the early site, or whether one does, is
a matter of names and of architecture here, and maps at the last subject token have little to find in `world`: what an instrument says there must be read with that in mind.""",
}
