"""The feed: which token goes into the decoder at each step. The draws come first, then the scan.

Three questions make a feed: where a coin is tossed, and with which probability (`coin`, `position`,
teacher_prob); what replaces the gold token if the coin says so (`source`, `feed`); and in which
order tokens are chosen (one scan, or `passes` over all steps at once; see `rollout.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import BOS, NUM_RESERVED, UNK
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.names import check_known, did_you_mean
from s2s_jax.prng import per_step_keys, stream_key
from s2s_jax.sampling import choose_argmax, draw_noise, highest_ids, make_token_chooser

COINS = ("token", "sequence", "batch", "confidence")
"""The coins: what shares a toss, or "confidence"; see `RolloutOptions`."""

SOURCES = ("own", "uniform", "unigram", "blank", "neighbour")
"""What replaces gold tokens: the model's own ones, or noise that knows nothing of the model."""

FEEDS = ("sample", "argmax", "soft", "gumbel")
"""How the model's own distribution is fed: as a token, or as an expected embedding."""

POSITIONS = ("none", "linear", "exponential", "inverse_sigmoid")
"""The schedules over target positions; see `position_probs`."""

_POSITION_K = {"linear": 20.0, "exponential": 0.99, "inverse_sigmoid": 20.0}


@dataclass(frozen=True)
class RolloutOptions:
    """What is fed to the decoder in training; the keys of a config's section `rollout`.

        x_1 = BOS,   x_{t+1} = y_t if the coin says gold else the replacement

    With the default, scheduled sampling (Bengio et al. 2015, arXiv:1506.03099), every token has its
    own coin, and the replacement is a sample of the model.

    Attributes:
      coin: what shares a toss: nothing ("token", as in the paper), the tokens of a sequence
        ("sequence") or of the whole batch ("batch"). With "confidence", a token has its own coin,
        and where it says own, the gold token is still fed if its probability p(y_t) is at most
        `gold_below`, and a random token of the same target if it is above `own_below` (Liu et al.
        2021, arXiv:2107.10427).
      source: the replacement: "own", or as a control noise that does not depend on the model's
        errors: "uniform" over all ids that are not reserved, the gold one included; "unigram", by
        frequency in the training data; "blank", the unknown symbol (word dropout, Bowman et al.
        2016, arXiv:1511.06349); "neighbour", one of the `num_neighbours` ids whose embeddings are
        nearest to the gold token's.
      feed: "sample" draws the own token, "argmax" takes the most likely one; "soft" feeds the
        expected embedding sum_v softmax(`sharpness` o)_v E_v, through which the gradient flows
        (Goyal et al. 2017, arXiv:1704.06970), and "gumbel" the same with Gumbel noise on o.
      temperature: of "sample"; see `s2s_jax.sampling.make_token_chooser`, also for top_k.
      top_k: sample from the k most likely tokens; 0 for all.
      num_neighbours: of "neighbour".
      sharpness: of "soft" and "gumbel": the inverse temperature of the expectation.
      straight_through: of "soft" and "gumbel": feed the most likely token's embedding, with the
        gradient of the expected one.
      position: how the probability of gold depends on the target position; see `position_probs`.
      position_k: its parameter; None for 20 (linear, inverse_sigmoid) or 0.99 (exponential).
      position_floor: its smallest value.
      gold_below: of "confidence".
      own_below: of "confidence".
      passes: 0 chooses the tokens one after another, in a scan. N >= 1 chooses all of them at once,
        N times, each time from the predictions for the tokens of the time before, the first time
        for the gold ones (Mihaylova & Martins 2019, arXiv:1906.07651; Duckworth et al. 2019,
        arXiv:1906.04331). If N is the length of the target, the result is that of the scan.
      through_passes: of "soft" and "gumbel" in passes: whether the gradient flows through them into
        the predictions that made the expected embeddings. Without passes it always does.

    Raises:
      ValueError: a value is unknown or out of range, or has no effect together with another one.

    Example:
      >>> RolloutOptions(source="uniform", temperature=0.5)
      Traceback (most recent call last):
      ValueError: temperature is 0.5; it has no effect unless source is 'own'
    """

    coin: str = "token"
    source: str = "own"
    feed: str = "sample"
    temperature: float = 1.0
    top_k: int = 0
    num_neighbours: int = 10
    sharpness: float = 1.0
    straight_through: bool = False
    position: str = "none"
    position_k: float | None = None
    position_floor: float = 0.0
    gold_below: float = 0.9
    own_below: float = 0.95
    passes: int = 0
    through_passes: bool = False

    def __post_init__(self):
        for name, known in (
            ("coin", COINS),
            ("source", SOURCES),
            ("feed", FEEDS),
            ("position", POSITIONS),
        ):
            value = getattr(self, name)
            check_known(name, value, known)
        own = self.source == "own"
        for names, works, needed in (
            (("feed", "temperature", "top_k", "passes"), own, "source is 'own'"),
            (("num_neighbours",), self.source == "neighbour", "source is 'neighbour'"),
            (("sharpness", "straight_through"), self.is_soft, "feed is 'soft' or 'gumbel'"),
            (("position_k", "position_floor"), self.position != "none", "there is a position"),
            (("gold_below", "own_below"), self.coin == "confidence", "coin is 'confidence'"),
            (
                ("through_passes",),
                self.is_soft and self.passes > 0,
                "there are passes and feed is 'soft' or 'gumbel'",
            ),
        ):
            for name in names:
                value = getattr(self, name)
                if not works and value != _default(name):
                    raise ValueError(f"{name} is {value!r}; it has no effect unless {needed}")
        if self.coin == "confidence" and not own:
            raise ValueError("coin is 'confidence', which feeds own tokens; source must be 'own'")
        if self.is_soft:
            if self.coin == "confidence":
                raise ValueError(f"coin is 'confidence', which feeds tokens; feed is {self.feed!r}")
            for name in ("temperature", "top_k"):
                value = getattr(self, name)
                if value != _default(name):
                    raise ValueError(f"{name} is {value!r}; feed {self.feed!r} has none")
        else:
            make_token_chooser(self.feed, self.temperature, self.top_k)
        if not 0 < self.sharpness <= 1e6:
            raise ValueError(f"sharpness is {self.sharpness}; it must be in (0, 1e6]")
        if self.num_neighbours < 1:
            raise ValueError(f"num_neighbours is {self.num_neighbours}; it must be at least 1")
        if self.passes < 0:
            raise ValueError(f"passes is {self.passes}; it must be at least 0")
        if not 0 <= self.position_floor < 1:
            raise ValueError(f"position_floor is {self.position_floor}; it must be in [0, 1)")
        if self.position_k is not None:
            highest = 1.0 if self.position == "exponential" else float("inf")
            if not 0 < self.position_k < highest:
                raise ValueError(f"position_k is {self.position_k}; it must be in (0, {highest})")
        if not 0 <= self.gold_below <= self.own_below <= 1:
            raise ValueError(
                f"gold_below is {self.gold_below} and own_below {self.own_below}; they must be in"
                " [0, 1], the first at most the second"
            )

    @property
    def is_soft(self) -> bool:
        """Whether an expected embedding is fed instead of a token."""
        return self.feed in ("soft", "gumbel")


def _default(name: str) -> Any:
    return RolloutOptions.__dataclass_fields__[name].default


class Fed(NamedTuple):
    """What the decoder was fed; inside a train step it is time first, like the target.

    Attributes:
      tokens: [batch, time] int32 ids; BOS first. If embeddings are fed, the most likely ids.
      is_gold: [batch, time] bool, True where the gold token was fed because the coin said so, and
        where no coin is tossed: at the first step and outside the mask. A replacement can equal the
        gold token, so this is not `tokens == gold`.
    """

    tokens: jax.Array
    is_gold: jax.Array

    def turned(self) -> "Fed":
        """Swaps the two axes: [batch, time] becomes [time, batch], and vice versa."""
        return Fed(self.tokens.T, self.is_gold.T)


class Draws(NamedTuple):
    """All that determines the token fed after a step, except for the model; time first.

    Attributes:
      gold: [time, batch] int32, the step's target.
      own: [time, batch] bool, True where the coin does not say gold; False at the last step.
      noise: [time, batch, 2], from `draw_noise`.
      replacement: [time, batch] int32: with a source other than "own" the token to feed where the
        coin does not say gold; with coin "confidence" the random token of the same target, or -1
        where the own token is fed however sure the model is; else None.
    """

    gold: jax.Array
    own: jax.Array
    noise: jax.Array
    replacement: jax.Array | None


def toss_coins(
    key: jax.Array, teacher_prob: jax.Array, num_steps: int, batch_size: int, coin: str = "token"
) -> jax.Array:
    """Draws which inputs are gold; each one is with probability teacher_prob.

        is_gold ~ Bernoulli(teacher_prob)   per token, per sequence or per batch

    Args:
      key: one PRNG key; target step t draws from fold_in(key, t), so a longer batch tosses the
        same coins and then additional ones.
      teacher_prob: in [0, 1], a scalar or [num_steps]; at 1 every coin says gold, at 0 none does.
      num_steps: number of target steps with a toss.
      batch_size: number of sequences.
      coin: what shares a toss: nothing ("token", as in the paper), the tokens of a sequence
        ("sequence"; "much worse" in Bengio et al. 2015, arXiv:1506.03099, section 2.4, footnote)
        or the whole batch ("batch").

    Returns:
      [num_steps, batch_size] bool.

    Raises:
      ValueError: an unknown coin.

    Example:
      >>> coins = toss_coins(jax.random.key(0), jnp.float32(0.5), 3, 1000, coin="sequence")
      >>> bool(jnp.all(coins == coins[0])), abs(float(coins.mean()) - 0.5) < 0.05
      (True, True)
    """
    if coin in ("token", "confidence"):
        keys = per_step_keys(key, num_steps)
        draws = jax.vmap(lambda k: jax.random.uniform(k, (batch_size,)))(keys)
    elif coin == "sequence":
        draws = jax.random.uniform(key, (1, batch_size))
    elif coin == "batch":
        draws = jax.random.uniform(key, (1, 1))
    else:
        raise ValueError(f"coin is {coin!r}; {did_you_mean(coin, COINS)}")
    if jnp.ndim(teacher_prob):
        teacher_prob = teacher_prob[:, None]
    return jnp.broadcast_to(draws < teacher_prob, (num_steps, batch_size))


def position_probs(
    teacher_prob: jax.Array, num_steps: int, position: str, k: float | None = None, floor: float = 0
) -> jax.Array:
    """The probability of feeding the gold token after each target position.

        p_t = f(t (1 - g)),   g = teacher_prob,   t = 1, 2, ...
        linear: f(t) = 1 - t/k     exponential: k^t     inverse_sigmoid: (k + 1) / (k + exp(t/k))

    f is at least the floor. At g = 1 every token is gold, since f(0) = 1; at g = 0 the position
    alone decides; in between the two schedules are composed (Liu et al. 2021, arXiv:2108.12963,
    whose inverse sigmoid k / (k + exp(t/k)) is scaled here so that f(0) = 1).

    Args:
      teacher_prob: scalar in [0, 1], the training schedule's value.
      num_steps: number of positions.
      position: "linear", "exponential", "inverse_sigmoid", or "none" for teacher_prob everywhere.
      k: None for 20, or 0.99 if exponential.
      floor: the smallest probability.

    Returns:
      [num_steps] float32; a scalar for "none".

    Example:
      >>> position_probs(jnp.float32(0.0), 3, "linear", k=4.0).tolist()
      [0.75, 0.5, 0.25]
      >>> position_probs(jnp.float32(0.5), 3, "linear", k=4.0).tolist()
      [0.875, 0.75, 0.625]
    """
    if position == "none":
        return teacher_prob
    k = _POSITION_K[position] if k is None else k
    steps = jnp.arange(1, num_steps + 1) * (1 - teacher_prob)
    if position == "linear":
        probs = 1 - steps / k
    elif position == "exponential":
        probs = k**steps
    else:
        probs = (k + 1) / (k + jnp.exp(steps / k))
    return jnp.maximum(probs, floor)


class Feeding:
    """Chooses fed tokens: draws all randomness before the scan, and one token in each scan step.

    x_1 = BOS,   x_{t+1} = y_t if coin_t else the replacement

    Args:
      model: the functions of `Seq2SeqModel`.
      options: what is fed.
      unigram_probs: [vocab_size], for the source "unigram": how often each id occurs in the
        training targets; need not be normalised. Reserved ids are never drawn.
      beyond_gold: whether a sequence that is fed the model's own tokens goes on where the gold one
        has ended, without a coin. Otherwise nothing is decided there, and gold is fed.

    Raises:
      ValueError: the model or its vocabulary does not allow these options.
    """

    def __init__(
        self,
        model: Seq2SeqModel,
        options: RolloutOptions,
        unigram_probs: Any | None = None,
        *,
        beyond_gold: bool = False,
    ):
        self.options, self.vocab_size, self.beyond_gold = options, model.vocab_size, beyond_gold
        if options.top_k > model.vocab_size:
            raise ValueError(
                f"top_k is {options.top_k}, and the vocabulary has {model.vocab_size} tokens"
            )
        self.is_soft = options.is_soft
        self.knows_all = options.source != "own"
        self.choose_token = make_token_chooser(
            "argmax" if self.is_soft else options.feed, options.temperature, options.top_k
        )
        self._table: Callable[[Any], jax.Array] | None = None
        if options.source != "own" and model.vocab_size <= NUM_RESERVED:
            raise ValueError(
                f"source is {options.source!r}; the vocabulary has only the reserved ids"
            )
        if options.source == "neighbour" or self.is_soft:
            if model.vectors is None:
                name = "source" if options.source == "neighbour" else "feed"
                raise ValueError(
                    f"{name} is {getattr(options, name)!r}; this model cannot be fed vectors"
                )
            self._table = model.vectors.table
        if options.source == "neighbour" and options.num_neighbours >= (
            model.vocab_size - NUM_RESERVED
        ):
            raise ValueError(
                f"num_neighbours is {options.num_neighbours}; there are"
                f" {model.vocab_size - NUM_RESERVED} ids, the token's own included"
            )
        if options.source == "unigram":
            if unigram_probs is None or np.shape(unigram_probs) != (model.vocab_size,):
                raise ValueError(
                    f"source is 'unigram'; it needs the frequencies of {model.vocab_size} target"
                    " ids"
                )
            self._unigram_probs = np.array(unigram_probs, np.float64)
            self._unigram_probs[:NUM_RESERVED] = 0
            if not (np.all(self._unigram_probs >= 0) and self._unigram_probs.sum() > 0):
                raise ValueError(
                    "source is 'unigram'; every frequency must be at least 0, and that of an id"
                    " that is not reserved above 0"
                )

    def draw(
        self,
        params: Any,
        target: jax.Array | np.ndarray,
        mask: jax.Array | np.ndarray,
        key: jax.Array,
        teacher_prob: Any,
    ) -> Draws:
        """Tosses the coins, and draws the noise and the replacements.

        Args:
          params: the model's parameters; only the source "neighbour" uses them.
          target: [time, batch] int32 ids.
          mask: [time, batch] bool.
          key: the step's key.
          teacher_prob: scalar in [0, 1].
        """
        target, mask = jnp.asarray(target), jnp.asarray(mask)
        length, batch_size = target.shape
        options = self.options
        coins_key, samples_key = stream_key(key, "coins"), stream_key(key, "samples")
        probs = position_probs(
            teacher_prob, length - 1, options.position, options.position_k, options.position_floor
        )
        is_gold = toss_coins(coins_key, probs, length - 1, batch_size, options.coin)
        if self.beyond_gold and not self.knows_all:
            is_gold &= mask[:-1]
        else:
            is_gold |= ~mask[1:]  # neither the end symbol nor padding is ever replaced
        own = jnp.pad(~is_gold, ((0, 1), (0, 0)))  # nothing is fed after the last step
        noise = jax.vmap(lambda key: draw_noise(key, (batch_size,)))(
            per_step_keys(samples_key, length)
        )
        return Draws(target, own, noise, self._replacements(params, target, mask, noise[..., 0]))

    def _replacements(
        self, params: Any, target: jax.Array, mask: jax.Array, uniform: jax.Array
    ) -> jax.Array | None:
        """[time, batch] ids, from uniform numbers in [0, 1) of the same shape."""
        options, num_ids = self.options, self.vocab_size - NUM_RESERVED

        def among(number: Any) -> jax.Array:
            return jnp.minimum((uniform * number).astype(jnp.int32), jnp.int32(number) - 1)

        if options.coin == "confidence":
            num_tokens = jnp.maximum(mask.sum(0) - 1, 1)  # without the end symbol
            drawn = jnp.take_along_axis(target, among(num_tokens), axis=0)
            if not self.beyond_gold:
                return drawn
            is_inside = jnp.pad(mask[1:], ((0, 1), (0, 0)))  # of the target, before its end symbol
            return jnp.where(is_inside, drawn, jnp.where(mask, target, -1))
        if options.source == "uniform":
            return NUM_RESERVED + among(num_ids)
        if options.source == "blank":
            return jnp.full(target.shape, UNK, jnp.int32)
        if options.source == "unigram":
            counts = self._unigram_probs
            cumulated = np.cumsum(counts / counts.sum()).astype(np.float32)
            found = jnp.searchsorted(cumulated, uniform * cumulated[-1], side="right")
            # Rounding can reach the very end; argmax is the last id whose frequency is not 0.
            return jnp.minimum(found, np.argmax(cumulated)).astype(jnp.int32)
        if options.source == "neighbour":
            assert self._table is not None
            table = jax.lax.stop_gradient(self._table(params).astype(jnp.float32))
            reserved = jnp.arange(self.vocab_size) < NUM_RESERVED
            norms = jnp.where(reserved, jnp.inf, jnp.square(table).sum(-1))

            def nearest(inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
                tokens, choice = inputs
                products = jnp.matmul(table[tokens], table.T, precision="highest")
                distances = jnp.where(
                    tokens[:, None] == jnp.arange(self.vocab_size), jnp.inf, norms - 2 * products
                )
                ids = highest_ids(-distances, options.num_neighbours)
                return jnp.take_along_axis(ids, choice[:, None], axis=1)[:, 0]

            return jax.lax.map(nearest, (target, among(options.num_neighbours)))
        return None

    def first(self, batch_size: int) -> jax.Array:
        """The tokens [batch] that are fed at the first step."""
        return jnp.full((batch_size,), BOS, jnp.int32)

    def next(self, logits: jax.Array, draws: Draws) -> tuple[jax.Array, jax.Array]:
        """The tokens after a step, from its logits [..., vocab_size] and its draws [...].

        Returns:
          The tokens, and where they are not the gold ones by the coin's choice; both [...].
        """
        token, replaced = self.choose_token(logits, draws.noise), draws.own
        if draws.replacement is not None:
            confidence, is_beyond = self._confidence(logits, draws), draws.replacement < 0
            is_sure = (confidence > self.options.own_below) & ~is_beyond
            token = jnp.where(is_sure, draws.replacement, token)
            replaced = draws.own & ((confidence > self.options.gold_below) | is_beyond)
        return jnp.where(replaced, token, draws.gold), replaced

    def expect(
        self, logits: jax.Array, table: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The expected vector after a step, with its gradient, and the most likely token.

        Args:
          logits: [batch, vocab_size].
          table: [vocab_size, size] the vectors of the ids.
          key: of the Gumbel noise of this step.

        Returns:
          [batch, size] vectors and [batch] int32 ids.
        """
        logits = self.options.sharpness * logits.astype(jnp.float32)
        if self.options.feed == "gumbel":
            logits = logits + self.options.sharpness * jax.random.gumbel(key, logits.shape)
        token = choose_argmax(logits)
        expected = jax.nn.softmax(logits).astype(table.dtype) @ table
        if self.options.straight_through:
            expected += jax.lax.stop_gradient(table[token] - expected)
        return expected, token

    def fed(self, next_tokens: jax.Array, replaced: jax.Array) -> Fed:
        """What was fed, time first, given what `next` returned at all steps."""
        return Fed(_one_step_late(next_tokens, BOS), _one_step_late(~replaced, True))

    def known(self, draws: Draws) -> Fed:
        """What is fed, time first, if it does not depend on the model (`knows_all`)."""
        assert draws.replacement is not None
        return self.fed(jnp.where(draws.own, draws.replacement, draws.gold), draws.own)

    def all_gold(self, target: jax.Array) -> Fed:
        """What is fed, time first, while teacher_prob is 1; target [time, batch]."""
        return Fed(_one_step_late(target, BOS), jnp.ones(target.shape, bool))

    def _confidence(self, logits: jax.Array, draws: Draws) -> jax.Array:
        """p(y_t), the probability of the gold token."""
        logits = logits.astype(jnp.float32)
        gold = jnp.clip(draws.gold, 0, self.vocab_size - 1)[..., None]
        of_gold = jnp.take_along_axis(logits, gold, axis=-1)[..., 0]
        return jnp.exp(of_gold - jax.nn.logsumexp(logits, axis=-1))


def _one_step_late(array: jax.Array, first: int | bool) -> jax.Array:
    """Shifts an array [time, batch] by one step: `first`, then all but the last step."""
    return jnp.pad(array[:-1], ((1, 0), (0, 0)), constant_values=first)
