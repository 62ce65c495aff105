"""Training objectives: the loss of the gold targets given the tokens that were fed."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import Batch, gold_inputs, to_jax
from s2s_jax.forward_pass import make_forward_pass
from s2s_jax.metrics import Mean, MetricSums, masked_mean
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.prng import stream_key
from s2s_jax.theory.chains import Chains
from s2s_jax.theory.optimum import optimum_divergences

Objective = Callable[[Params, Batch, jax.Array, jax.Array], tuple[jax.Array, MetricSums]]
"""(params, batch, key, teacher_prob) -> (loss, metric sums).

The sums contain at least "loss". If exact theory predicts what training on the objective converges
to, the function has an attribute `optimum`: see `optimum_of`.
"""

Optimum = Callable[[Chains, float], tuple[np.ndarray, np.ndarray]]
"""(chains, teacher_prob) -> KL(truth || optimum) of each chain in nats, and whether it is known."""


def optimum_of(objective: Objective) -> Optimum | None:
    """What training on an objective converges to according to exact theory; None if not known.

    This is the objective's own attribute `optimum`; without that attribute, nothing is claimed.

    Example:
      >>> from s2s_jax.models.tabular import make_tabular_model
      >>> from s2s_jax.theory.chains import make_chain
      >>> model = make_tabular_model(2, 2)
      >>> chain = make_chain((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), length=3)
      >>> optimum = optimum_of(make_objective(model, coin="sequence"))
      >>> optimum(chain, 0.5)[0].round(6).tolist()
      [0.133008]
      >>> optimum_of(make_objective(model, label_smoothing=0.1)) is None
      True
    """
    return getattr(objective, "optimum", None)


def make_objective(
    model: Seq2SeqModel,
    *,
    coin: str = "token",
    feed: str = "sample",
    temperature: float = 1.0,
    top_k: int = 0,
    label_smoothing: float = 0.0,
) -> Objective:
    """Makes the objective that teacher forcing, scheduled sampling and free running share.

        loss = sum_t -log p(y_t | x_1 ... x_t) / number of target tokens

    with x the fed tokens of `make_rollout`. Given x, this is a differentiable function of the
    parameters, with one loss and one gradient for the whole sequence. The gradient equals that of a
    single scan that samples as it goes. The encoder runs once. If the model has a `Replay`, the
    pass that chooses x also computes the loss; otherwise decode_sequence makes a second pass on x,
    with the same dropout masks.

    Args:
      model: the functions of `Seq2SeqModel`.
      coin: see `toss_coins`.
      feed: see `make_rollout`.
      temperature: sampling temperature; see `make_rollout`.
      top_k: sample from the k most likely tokens, 0 for all; see `make_rollout`.
      label_smoothing: see `cross_entropy`; the reported "nll" does not include it.

    Returns:
      objective(params, batch, key, teacher_prob) -> (loss, metric sums), with the sums "loss",
      "nll" (nats per token), "token_accuracy", "gold_share" (the share of gold among the inputs
      that a coin decided) and "fed_error_rate" (the share of the fed tokens after the start symbol
      that differ from the gold ones). Loss and gradient are NaN if teacher_prob is not in [0, 1];
      the derivative with respect to teacher_prob is 0.

    Raises:
      ValueError: an option is out of range, or another option makes it meaningless.
    """
    forward_pass = make_forward_pass(
        model,
        label_smoothing=label_smoothing,
        coin=coin,
        feed=feed,
        temperature=temperature,
        top_k=top_k,
    )

    def objective(
        params: Params, batch: Batch, key: jax.Array, teacher_prob: jax.Array
    ) -> tuple[jax.Array, MetricSums]:
        source, source_mask, target, mask = to_jax(batch)
        memory = model.encode(params, source, source_mask, stream_key(key, "dropout"))
        fed, losses = forward_pass(params, memory, target, mask, key, teacher_prob)
        decided = mask.at[:, 0].set(False)  # no coin decides the start symbol
        # A compiled step cannot raise an error; a NaN loss and gradient cannot be overlooked.
        is_probability = (teacher_prob >= 0) & (teacher_prob <= 1)
        total = losses.loss.total * jnp.where(is_probability, 1.0, jnp.nan)
        metrics = {
            "loss": Mean(total, losses.loss.weight),
            "nll": losses.nll,
            "token_accuracy": losses.accuracy,
            "gold_share": masked_mean(fed.is_gold, decided),
            "fed_error_rate": masked_mean(fed.tokens != gold_inputs(target), decided),
        }
        return total / jnp.maximum(losses.loss.weight, 1.0), metrics

    # Temperature, top-k and label smoothing change what is fed or learned, so no theory applies.
    if temperature == 1 and top_k == 0 and label_smoothing == 0:
        optimum: Optimum = partial(optimum_divergences, coin=coin, feed=feed)
        objective.optimum = optimum  # pyright: ignore[reportFunctionMemberAccess]
    return objective
