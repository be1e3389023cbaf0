"""Extreme compression and beyond: the teacher reads the student's own cut too, so that every term applies to it."""

import dataclasses
from typing import Annotated

from jaxdistill import knobs
from jaxdistill.data.views import View
from jaxdistill.errors import UserError
from jaxdistill.terms import AttentionScores, HiddenStates, Ramp, SoftTargets

VIEW = "aligned"
"""What the teacher reads beside its mixed text: the student's pieces, with the student's masks."""


@knobs.extending("extreme")
def config(
    made,
    soft: Annotated[float, "weight of soft targets over the student's pieces; 0 leaves them out", "Beyond it"] = 1.0,
    temperature: Annotated[float, "of the soft targets"] = 2.0,
    masked_only: Annotated[bool, "soft targets at masked positions only, instead of at all"] = False,
    states: Annotated[float, "weight of hidden states and embeddings through learned maps; 0 leaves them out"] = 0.0,
    scores: Annotated[float, "weight of attention scores, of as many heads as the teacher's; 0 leaves them out"] = 0.0,
    after: Annotated[int, "these weights are 0 for so many steps, and whole a tenth of all steps later"] = 0,
):
    """Extreme compression (arXiv 1909.11687) and, beyond it, all that a teacher of both vocabularies can show.

    The teacher reads the student's own pieces and masks as well as its mixed text. There the student follows what the
    teacher predicts, its hidden states and its attention. `nokd` has no teacher, and so none of it.
    """
    name = made.name.replace("extreme", "extreme_plus")
    if "teacher" not in made.models:
        return dataclasses.replace(made, name=name)
    end = after + max(made.steps // 10, 1)
    if after < 0 or (after and end >= made.steps):
        raise UserError(
            f"after={after}: the weights would be whole at step {end}, but the run has steps 0 to {made.steps - 1}"
        )
    terms = {
        "soft": SoftTargets(VIEW, weight=soft, temperature=temperature, masked_only=masked_only, mixed=made.mixed),
        "states": HiddenStates(VIEW, weight=states),
        "scores": AttentionScores(VIEW, weight=scores),
    }
    terms = {name: term for name, term in terms.items() if term.weight}
    if terms and not made.data.views["teacher"].probability:
        raise UserError(
            "mix=0: the teacher never learns to read the student's pieces; raise it, or leave these terms out"
        )
    if after:
        terms = {n: dataclasses.replace(term, weight=Ramp(0.0, term.weight, after, end)) for n, term in terms.items()}
    again = View("teacher", "student", 1.0, masks_of="student")
    return dataclasses.replace(
        made,
        name=name,
        data=dataclasses.replace(made.data, views={**made.data.views, VIEW: again}),
        reads={VIEW: "teacher"},
        terms={**made.terms, **terms},
    )
