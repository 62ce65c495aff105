"""The one place where the fed token is chosen: gold, or the model's own.

What the decoder passes itself, its carry, is never touched here; a training method decides only
which token goes in beside it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from s2s_jax.batch import BOS, gold_inputs
from s2s_jax.models.interface import Memory, Params, Seq2SeqModel, Trace
from s2s_jax.names import nearest
from s2s_jax.prng import per_step_keys, stream_key
from s2s_jax.sampling import TokenChooser, draw_noise, make_token_chooser

_LARGE_VOCABULARY = 1024
_ROW_PARTS = 4

COINS = ("token", "sequence", "batch")
"""What can share a toss; `make_rollout` refuses any other."""


class Fed(NamedTuple):
    """What the decoder was fed.

    Attributes:
      tokens: [batch, time] int32 ids; BOS first.
      is_gold: [batch, time] bool, where the coin said gold; True at the first step, where no coin
        is tossed. The model's own token can equal the gold one, so this is not `tokens == gold`.
      trace: what the forward pass over `tokens` left, for `Replay.replay`; () of a model without.
    """

    tokens: jax.Array
    is_gold: jax.Array
    trace: Trace = ()


Rollout = Callable[[Params, Memory, jax.Array, jax.Array, jax.Array], Fed]
"""(params, memory, target [batch, time], key, teacher_prob) -> Fed."""


def toss_coins(
    key: jax.Array, teacher_prob: jax.Array, batch_size: int, num_steps: int, coin: str = "token"
) -> jax.Array:
    """Draws which inputs are gold, each with probability teacher_prob.

        is_gold ~ Bernoulli(teacher_prob)   per token, per sequence or per batch

    Args:
      key: one PRNG key; target step t draws from fold_in(key, t), so a longer batch tosses the
        same coins and then some more.
      teacher_prob: scalar in [0, 1]; at 1 every coin is gold, at 0 none.
      batch_size: number of sequences.
      num_steps: number of target steps that toss.
      coin: what shares a toss: nothing ("token"; the paper's), the tokens of a sequence
        ("sequence"; "much worse" in Bengio et al. 2015, arXiv:1506.03099, section 2.4, footnote)
        or the whole batch ("batch").

    Returns:
      [batch_size, num_steps] bool.

    Raises:
      ValueError: an unknown coin.

    Example:
      >>> coins = toss_coins(jax.random.key(0), jnp.float32(0.5), 1000, 3, coin="sequence")
      >>> bool(jnp.all(coins == coins[:, :1])), abs(float(coins.mean()) - 0.5) < 0.05
      (True, True)
    """
    _check_coin(coin)
    if coin == "token":
        keys = per_step_keys(key, num_steps)
        draws = jax.vmap(lambda k: jax.random.uniform(k, (batch_size,)), out_axes=1)(keys)
    elif coin == "sequence":
        draws = jax.random.uniform(key, (batch_size, 1))
    else:
        draws = jax.random.uniform(key, (1, 1))
    return jnp.broadcast_to(draws < teacher_prob, (batch_size, num_steps))


def make_rollout(
    model: Seq2SeqModel,
    *,
    coin: str = "token",
    feed: str = "sample",
    temperature: float = 1.0,
    top_k: int = 0,
) -> Rollout:
    """Makes the scan over target time that feeds gold or the model's own tokens.

        x_1 = BOS,   x_t = y_{t-1} if coin_t else a token of p(. | x_<t)

    No gradient passes: neither through the choice nor into the parameters that made it
    (Bengio et al. 2015, arXiv:1506.03099, section 2.4). While teacher_prob is 1 no coin is tossed
    and no token drawn.

    Args:
      model: its decode_step is scanned.
      coin: "token", "sequence" or "batch"; see `toss_coins`.
      feed: "sample" draws the own token from the model, "argmax" takes its likeliest.
      temperature: of the sample.
      top_k: sample among the k likeliest; 0 for all.

    Returns:
      rollout(params, memory, target, key, teacher_prob) -> Fed.

    Raises:
      ValueError: an unknown coin or feed, a temperature or top_k that the feed cannot honour.
    """
    _check_coin(coin)
    if top_k > model.vocab_size:
        raise ValueError(f"top_k is {top_k}, and the vocabulary has {model.vocab_size} tokens")
    choose_token = make_token_chooser(feed, temperature, top_k)

    def own_or_gold(
        params: Params, memory: Memory, target: jax.Array, key: jax.Array, teacher_prob: jax.Array
    ) -> Fed:
        batch_size, length = target.shape
        is_gold = toss_coins(stream_key(key, "coins"), teacher_prob, batch_size, length - 1, coin)
        own = jnp.pad(~is_gold, ((0, 0), (0, 1)))  # nobody is fed behind the last step
        keys = per_step_keys(stream_key(key, "samples"), length)
        noise = jax.vmap(lambda key: draw_noise(key, (batch_size,)))(keys)
        choose_own = _make_choice(model, choose_token, params, batch_size)

        def step(carry, inputs):
            decoder_carry, token = carry
            gold_token, *of_choice = inputs
            if model.replay is None:
                decoder_carry, logits = model.decode_step(params, memory, decoder_carry, token)
                token, trace = choose_own(gold_token, logits, *of_choice), ()
            else:
                decoder_carry, features, trace = model.replay.step(
                    params, memory, decoder_carry, token
                )
                token = choose_own(gold_token, features, *of_choice)
            return (decoder_carry, token), (token, trace)

        start = jnp.full((batch_size,), BOS, jnp.int32)
        _, (tokens, trace) = jax.lax.scan(
            step,
            (model.initial_carry(params, memory), start),
            (target.T, own.T, noise),
        )
        return Fed(
            jnp.concatenate([start[:, None], tokens[:-1].T], axis=1),
            jnp.pad(is_gold, ((0, 0), (1, 0)), constant_values=True),
            trace,
        )

    def gold(
        params: Params, memory: Memory, target: jax.Array, key: jax.Array, teacher_prob: jax.Array
    ) -> Fed:
        tokens = gold_inputs(target)
        trace = model.replay.sequence(params, memory, tokens) if model.replay else ()
        return Fed(tokens, jnp.ones(target.shape, bool), trace)

    @partial(_vmapped_as, own_or_gold, 4)
    def feed_tokens(params, memory, target, key, teacher_prob):
        return jax.lax.cond(
            teacher_prob < 1.0, own_or_gold, gold, params, memory, target, key, teacher_prob
        )

    def rollout(
        params: Params, memory: Memory, target: jax.Array, key: jax.Array, teacher_prob: jax.Array
    ) -> Fed:
        params, memory = jax.lax.stop_gradient((params, memory))
        target = jnp.asarray(target, jnp.int32)
        return feed_tokens(params, memory, target, key, jnp.asarray(teacher_prob, jnp.float32))

    return rollout


def _make_choice(
    model: Seq2SeqModel, choose_token: TokenChooser, params: Params, batch_size: int
) -> Callable[..., jax.Array]:
    """Makes the choice of a step: (gold token, features, own, noise) -> token; [batch, ...] each.

    A token is drawn only for the rows whose coin says own. Shapes are static, so there are a few
    capacities, and a step takes the smallest that holds its rows: none at all, a quarter of the
    batch, and so on. With a small vocabulary the logits of all rows cost less than picking rows.
    """
    if model.replay is None:
        return lambda gold, logits, own, noise: jnp.where(own, choose_token(logits, noise), gold)
    parts = _ROW_PARTS if model.vocab_size >= _LARGE_VOCABULARY else 1
    capacities = sorted({-(-batch_size * part // parts) for part in range(1, parts + 1)})
    thresholds = jnp.array([0, *capacities[:-1]])

    def choose_all(output, gold, features, own, noise):
        kernel, bias = output
        logits = (features @ kernel).astype(jnp.float32) + bias
        return jnp.where(own, choose_token(logits, noise), gold)

    def choose_rows(capacity, output, gold, features, own, noise):
        if capacity == batch_size:
            return choose_all(output, gold, features, own, noise)
        rows = jnp.argsort(~own, stable=True)[:capacity]
        chosen = choose_all(output, gold[rows], features[rows], own[rows], noise[rows])
        return gold.at[rows].set(chosen)

    branches = [lambda output, gold, *_: gold]
    branches += [partial(choose_rows, capacity) for capacity in capacities]

    # Of lanes whose coins differ, a switch would compute every branch.
    @partial(_vmapped_as, choose_all, 3)
    def choose_own(output, gold, features, own, noise):
        branch = (own.sum() > thresholds).sum()
        return jax.lax.switch(branch, branches, output, gold, features, own, noise)

    return partial(choose_own, model.replay.output(params))


def _vmapped_as(
    replacement: Callable[..., Any], deciding: int, function: Callable[..., Any]
) -> Callable[..., Any]:
    """`function`, for which `jax.vmap` takes one of the same values without branches.

    Only where the argument that decides on the branch differs between lanes: a branch that they
    share stays one.
    """
    wrapped = custom_vmap(function)

    @wrapped.def_vmap
    def _(axis_size: int, in_batched: Any, *args: Any):
        axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)
        taken = replacement if jax.tree.leaves(in_batched[deciding])[0] else function
        outputs = jax.vmap(taken, in_axes=tuple(axes), axis_size=axis_size)(*args)
        return outputs, jax.tree.map(lambda _: True, outputs)

    return wrapped


def _check_coin(coin: str) -> None:
    if coin not in COINS:
        raise ValueError(f"coin is {coin!r}; {nearest(coin, COINS)}")
