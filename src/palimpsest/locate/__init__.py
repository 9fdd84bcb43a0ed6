"""Instruments that say where a fact is read from, and the gate that says whether it is known at all."""

from palimpsest.locate.check import check_localizer
from palimpsest.locate.controls import against_other_layers, against_random_sites, reinitialised
from palimpsest.locate.knockout import Knockout, knockout, knockout_profile
from palimpsest.locate.knowledge_neurons import KnowledgeNeurons, NeuronSurvey, knowledge_neurons, neuron_survey
from palimpsest.locate.known import Knowledge, ask_each, eligible, knowledge, passing
from palimpsest.locate.lens import Lens, lens_profile, logit_lens
from palimpsest.locate.lesion import lesion
from palimpsest.locate.maps import EffectMap, Lesion, Trace
from palimpsest.locate.neuron_effects import NeuronEffects, neuron_effects
from palimpsest.locate.neuron_meaning import regress_on_text, what_neurons_write
from palimpsest.locate.neurons import Attribution, neurons
from palimpsest.locate.probes import Probes, probe
from palimpsest.locate.reading import Profile
from palimpsest.locate.roles import (
    ROLES,
    RoleProfile,
    average,
    decisive_by_length,
    decisive_roles,
    roles_of,
    separability,
    share_of_total,
)
from palimpsest.locate.survey import Survey, lesion_facts, survey, trace_facts
from palimpsest.locate.trace import trace

__all__ = [
    "ROLES",
    "Attribution",
    "EffectMap",
    "Knockout",
    "Knowledge",
    "KnowledgeNeurons",
    "Lens",
    "Lesion",
    "NeuronEffects",
    "NeuronSurvey",
    "Probes",
    "Profile",
    "RoleProfile",
    "Survey",
    "Trace",
    "against_other_layers",
    "against_random_sites",
    "ask_each",
    "average",
    "check_localizer",
    "decisive_by_length",
    "decisive_roles",
    "eligible",
    "knockout",
    "knockout_profile",
    "knowledge",
    "knowledge_neurons",
    "lens_profile",
    "lesion",
    "lesion_facts",
    "logit_lens",
    "neuron_effects",
    "neuron_survey",
    "neurons",
    "passing",
    "probe",
    "regress_on_text",
    "reinitialised",
    "roles_of",
    "separability",
    "share_of_total",
    "survey",
    "trace",
    "trace_facts",
    "what_neurons_write",
]
