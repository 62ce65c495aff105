"""The edit oracle: the best next tokens after any prefix, those that minimise the edit distance.

It replaces the true distribution if that is unknown. If a source allows several targets, the given
one is not the only right one, so even a perfect model has a regret above 0: compare models with
each other, not with 0. After an error several tokens can be optimal, so the regret of a poor model
can be below 0.
"""

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.edit_distance import extend_row, first_row, optimal_places
from s2s_jax.exposure.intervals import Bootstrap, divide
from s2s_jax.exposure.measure import MIN_COUNT, Measure, curve, single
from s2s_jax.exposure.positions import token_mean
from s2s_jax.losses import log_probs_of


def optimal_next(target: jax.Array, mask: jax.Array, prefix: jax.Array) -> jax.Array:
    """Marks the positions in the target that hold an optimal next token, for every prefix.

        D(t, j) = Levenshtein distance of x_1 ... x_t and y_1 ... y_j
        A*(x_1 ... x_t) = {y_{j+1}: D(t, j) = min_k D(t, k)},   y_{|y|+1} = EOS

    Exactly these tokens can lead to the smallest possible final edit distance, min_k D(t, k).
    Sabour et al. (2019), "Optimal Completion Distillation", arXiv:1810.01398, section 3.

    Args:
      target: [batch, time] int32 ids y_1 ... y_|y|, EOS.
      mask: [batch, time] bool, up to and including EOS.
      prefix: [batch, length] int32 ids without BOS and EOS; its last token is ignored.

    Returns:
      [batch, length, time] bool: [:, t, j] says that target[:, j] is in A*(x_1 ... x_t), t = 0, 1
      ... length - 1. If a token occurs at several positions, each optimal one is marked.

    Example:
      >>> target = jnp.array([[7, 8, 9, 2]])
      >>> optimal = optimal_next(target, target > 0, jnp.array([[8, 5, 0]]))
      >>> [target[0][row].tolist() for row in optimal[0]]  # after nothing, after 8, after 8 5
      [[7], [7, 8, 9], [7, 8, 9, 2]]
    """

    def extend(row: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
        return extend_row(row, target, token), row

    _, rows = jax.lax.scan(extend, first_row(target), prefix.T)
    return optimal_places(rows, mask).swapaxes(0, 1)


def oracle_cost(
    log_probs: jax.Array, target: jax.Array, mask: jax.Array, prefix: jax.Array
) -> jax.Array:
    """The negative log-probability that a model gives to the optimal next tokens.

        cost_t = -log sum_{a in A*(x_<t)} p(a | x_<t)

    After a gold prefix only the next gold token is optimal, and the cost is its negative
    log-likelihood.

    Args:
      log_probs: [batch, length, vocab_size] log p(. | x_<t) of the model, in nats.
      target: [batch, time] int32 ids.
      mask: [batch, time] bool, up to and including EOS.
      prefix: [batch, length] int32 ids x_1 ... x_length.

    Returns:
      [batch, length] float32 nats.
    """
    optimal = optimal_next(target, mask, prefix)
    # A token counts once, at its first position in the target.
    same = (target[:, :, None] == target[:, None]) & mask[:, :, None] & mask[:, None]
    is_first = same.argmax(-1) == jnp.arange(target.shape[1])
    chosen = jnp.einsum("btj,bjk->btk", *(some.astype(jnp.float32) for some in (optimal, same)))
    chosen = (chosen > 0) & (is_first & mask)[:, None]
    of_target = log_probs_of(log_probs, jnp.broadcast_to(target[:, None], chosen.shape))
    return -jax.nn.logsumexp(jnp.where(chosen, of_target, -jnp.inf), axis=-1)


def edit_oracle_regret(
    gold_cost: np.ndarray,
    mask: np.ndarray,
    own_cost: np.ndarray,
    own_mask: np.ndarray,
    bootstrap: Bootstrap,
    min_count: int = MIN_COUNT,
) -> dict[str, Measure]:
    """The cost of the model's own prefixes, compared with gold ones.

        regret = mean own cost - mean gold cost      nats per token, each over its own tokens
        l eps_l = E sum_{t <= l} gold cost_t,   R_l = E sum_{t <= l} own cost_t
        AccErr(l) = R_l / eps_l,   %ExAccErr(l) = 100 (R_l - l eps_l) / (l eps_l)

    This is the accumulated error of Arora et al. (2022), arXiv:2204.01171, with the edit oracle's
    cost in place of the divergence from the truth. A sequence has no further cost after its end.
    The excess at length 1 is 0, because nothing has been fed yet.

    Args:
      gold_cost: [num_sequences, time] nats, the negative log-likelihood of gold tokens.
      mask: [num_sequences, time] bool, gold tokens, up to and including EOS.
      own_cost: [num_sequences, length] nats, on prefixes sampled from the model.
      own_mask: [num_sequences, length] bool, their tokens, up to and including EOS.
      bootstrap: over the sequences.
      min_count: the minimum number of gold sequences that reach a length.

    Returns:
      "gold_cost", "own_cost", "regret", "accumulated_by_length" and "excess_percent_by_length".
    """
    gold, own = np.where(mask, gold_cost, 0), np.where(own_mask, own_cost, 0)
    missing = max(0, gold.shape[1] - own.shape[1])
    until = [
        np.cumsum(some, axis=1, dtype=np.float64)
        for some in (gold, np.pad(own, ((0, 0), (0, missing)))[:, : gold.shape[1]])
    ]
    regret = bootstrap.of(
        lambda own, own_weight, gold, weight: divide(own, own_weight) - divide(gold, weight),
        *(some.sum(1, dtype=np.float64) for some in (own, own_mask, gold, mask)),
    )
    num_reaching = mask.sum(0)
    lengths = np.arange(1, mask.shape[1] + 1)[num_reaching >= max(min_count, 1)]

    def along(statistic, unit: str) -> Measure:
        return curve(
            bootstrap,
            statistic,
            *until,
            n=num_reaching,
            axis="length",
            unit=unit,
            min_count=min_count,
        )

    return {
        "gold_cost": token_mean(gold, mask, bootstrap, "nats"),
        "own_cost": token_mean(own, own_mask, bootstrap, "nats"),
        "regret": single(regret, len(mask), "nats"),
        "accumulated_by_length": along(lambda gold, own: lengths * divide(own, gold), "tokens"),
        "excess_percent_by_length": along(
            lambda gold, own: 100 * (divide(own, gold) - 1), "percent"
        ),
    }
