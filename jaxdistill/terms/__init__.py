"""Loss terms that a config can name; docs/own_loss.md shows how to write one more."""

from jaxdistill.terms.attention import AttentionScores
from jaxdistill.terms.masked_lm import MaskedLM
from jaxdistill.terms.projection import Projection
from jaxdistill.terms.shared_targets import SharedTargets
from jaxdistill.terms.soft_targets import SoftTargets
from jaxdistill.terms.states import CosineStates, HiddenStates, Patience
from jaxdistill.terms.tasks import TaskLoss, TaskTargets
from jaxdistill.terms.term import BatchTerm, ParameterTerm, Ramp, Term

__all__ = [
    "AttentionScores",
    "BatchTerm",
    "CosineStates",
    "HiddenStates",
    "MaskedLM",
    "ParameterTerm",
    "Patience",
    "Projection",
    "Ramp",
    "SharedTargets",
    "SoftTargets",
    "TaskLoss",
    "TaskTargets",
    "Term",
]
