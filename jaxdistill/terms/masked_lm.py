"""The cross-entropy of masked positions."""

import dataclasses

import jax.numpy as jnp

from jaxdistill import bert, losses
from jaxdistill.errors import UserError
from jaxdistill.mixed import Mixed
from jaxdistill.terms.term import Array, Models, Outputs, Sums, Weight, check_models, check_weight
from jaxdistill.tree import Tree


@dataclasses.dataclass(frozen=True)
class MaskedLM:
    """Cross-entropy of the masked positions of one view, in nats; mean over the global batch.

    With `mixed`, each position is scored only against the vocabulary its word was cut with (1909.11687: two softmaxes).
    """

    model: str
    weight: Weight = 1.0
    mixed: Mixed | None = None

    def check(self, models: Models) -> None:
        """Raises UserError when the model is missing or has no MLM head."""
        check_weight(self.weight)
        check_models(models, "a masked-LM term", self.model)
        if not models[self.model].mlm:
            raise UserError(f"a masked-LM term needs an MLM head, which {self.model!r} does not have: set mlm=True")

    def init(self, key: Array, params: Tree) -> dict:
        """No helper parameters: the map of a mixed view belongs to `Mixed`."""
        return {}

    def want(self) -> dict[str, frozenset[str]]:
        """It reads the MLM transform at the masked positions, which is always there."""
        return {self.model: frozenset()}

    def count(self, batch: Tree) -> Array:
        """Masked positions in the batch."""
        return jnp.sum(batch[self.model]["targets"] >= 0)

    def __call__(self, params: Tree, outputs: Outputs, batch: Tree, bridge: Tree) -> Sums:
        """The summed cross-entropy, and how many positions were right (`accuracy`)."""
        view, own = batch[self.model], params[self.model]
        predictions, targets = outputs[self.model].predictions, view["targets"]
        scores = bert.logits(predictions, own["embeddings"]["word"], own["mlm"]["bias"])
        if self.mixed is None:
            nats, right = losses.cross_entropy(scores, targets)
        else:
            other = view["target_source"] == 1
            other_scores = bert.logits(predictions, self.mixed.table(params), self.mixed.bias(params))
            own_nats, own_right = losses.cross_entropy(scores, jnp.where(other, -1, targets))
            other_nats, other_right = losses.cross_entropy(other_scores, jnp.where(other, targets, -1))
            nats, right = own_nats + other_nats, own_right + other_right
        return jnp.sum(nats), {"accuracy": jnp.sum(right)}
