"""The words of docs/evaluate-on-smollm2.md; the numbers in its tables come from results/evaluate."""

TEXT = {
    "intro": """Made by

    python experiments/evaluate_smollm2.py run && python experiments/evaluate_smollm2.py page

The first records of each file, in its order, none left out. Every number is a mean over records with a 95 % interval that resamples relations and, within
them, subjects. ROME, FT, FT-L and the random edit write one record, are measured, and are undone before the next; MEMIT writes all records in one batch and
AlphaEdit all in a sequence of steps of twenty, and both are measured once everything is written: their columns are of a model that holds all edits at once,
and are not to be read as those of single edits. What each metric is: [evaluate](evaluate.md) and [suites](suites.md).""",
    "counterfact": """Teacher forcing beside free generation, comparison of two answers beside both: `es` says that the new answer outranks the old one, `tf_exact`
that the model would write it if it were given all but each next token, `gen_begins` that it does write it.""",
    "after counterfact": """ES cannot tell these methods apart: FT meets it as ROME does, and writes little into other wordings (`ps`, `p_gen_begins`). After the prompts of
the edits teacher forcing (`tf_exact`) is a few points milder than what is written (`gen_begins`); in paraphrases the two agree. NS falls little for any of them, while the sentence of
the edit before a neighbour's prompt (`ns_plus`) costs ROME more than half of what the unedited model keeps there, and KL shows what two hundred edits at
once do to neighbours that NS hardly counts. The random edit, as large as ROME's, leaves every score where the unedited model has it to within a point or two: neither the success nor the damage
is due to size.""",
    "fluency": """Three texts of 100 drawn tokens a record. `ge` is not scaled by 100 here, and `rs` has the project's own vectors.""",
    "after fluency": """With twelve records the intervals are wide. No method's entropy falls below the unedited model's interval, so none makes the model repeat itself in a way
this measure sees; ROME's, MEMIT's and AlphaEdit's texts are the nearest to the references.""",
    "zsre": """Single edits. The published specificity counts the gold answer, which this model seldom knows; beside it, agreement with the unedited model.""",
    "after zsre": """ROME and MEMIT write the answer and much of it into rephrasings; knowledge-neuron edits stay where the unedited model is. Portability does not
move: teacher forcing gives every column the unedited model's share, and written freely no method says a single answer that follows from its edit.""",
    "knowedit": """Single edits. Portability and locality by kind.""",
    "after knowedit": """What carries over is another name of the subject; of reasoning and logical generalization every method's interval overlaps the unedited model's. `relation_specificity`
asks for other facts of the *same* subject, and ROME and MEMIT leave little more than a third of those answer tokens as they were, where zsRE's unrelated questions
said nearly all: the damage of an edit is near it. These records have no distracting neighbours.""",
    "symmetry": """Single edits of capitals that ship: the new answer's country, state or subject is asked the other way round.""",
    "after symmetry": """The edit is said and its reverse is not: asked the other way round, every column is where the unedited model is, and the new answer's own log-probability falls
(`symmetry_reverse_gain`).""",
    "synonymy": """Single edits of CounterFact records whose relation goes by other names in the suite's table.""",
    "after synonymy": """ROME and MEMIT carry over to other names of the relation; knowledge-neuron edits could not be made for eleven of the thirty records, and reach about a third of the others.""",
    "mquake": """All facts of a case are written together, then its questions are asked one by one.""",
    "after mquake": """ROME and MEMIT make the model say about half of the edited facts one by one; a chain of two and more of them it gets right in one case of twelve.""",
}
