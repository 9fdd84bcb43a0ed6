"""Instruments that say where a fact is read from, and the gate that says whether it is known at all."""

from palimpsest.locate.check import check_localizer
from palimpsest.locate.known import Knowledge, ask_each, eligible, knowledge, passing
from palimpsest.locate.neuron.attribution import Attribution, neurons
from palimpsest.locate.neuron.effects import NeuronEffects, neuron_effects
from palimpsest.locate.neuron.meaning import regress_on_text, what_neurons_write
from palimpsest.locate.neuron.shared import KnowledgeNeurons, NeuronSurvey, knowledge_neurons, neuron_survey
from palimpsest.locate.reading.knockout import Knockout, knockout, knockout_profile
from palimpsest.locate.reading.lens import Lens, lens_profile, logit_lens
from palimpsest.locate.reading.probes import Probes, probe
from palimpsest.locate.reading.profile import Profile
from palimpsest.locate.tracing.controls import against_other_layers, against_random_sites, reinitialised
from palimpsest.locate.tracing.lesion import lesion
from palimpsest.locate.tracing.maps import EffectMap, Lesion, Trace
from palimpsest.locate.tracing.roles import (
    ROLES,
    RoleProfile,
    average,
    decisive_by_length,
    decisive_roles,
    roles_of,
    separability,
    share_of_total,
)
from palimpsest.locate.tracing.survey import Survey, lesion_facts, survey, trace_facts
from palimpsest.locate.tracing.trace import trace

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
