"""Cross entropy, token by token: any feed with any target distribution."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import NUM_RESERVED, PAD, Batch, gold_inputs, to_jax
from s2s_jax.feeding import RolloutOptions, position_probs
from s2s_jax.forward_pass import make_forward_pass
from s2s_jax.losses import TargetRule
from s2s_jax.metrics import Mean, MetricSums, masked_mean
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.names import check_known, did_you_mean
from s2s_jax.objectives.completion import make_completion_rule
from s2s_jax.objectives.distillation import Teacher, make_distillation_rule
from s2s_jax.objectives.interface import Objective, Optimum
from s2s_jax.objectives.raml import check_raml, draw_edited, draw_targets, targets_key
from s2s_jax.objectives.unlikelihood import make_unlikelihood_rule
from s2s_jax.prng import stream_key
from s2s_jax.theory.chains import Chains
from s2s_jax.theory.distillation import distillation_divergences
from s2s_jax.theory.optimum import optimum_divergences
from s2s_jax.theory.raml import raml_divergences

TARGETS = ("gold", "raml", "ocd", "teacher")
"""What each step is trained towards; see `make_cross_entropy`."""

DISTANCES = ("hamming", "edit")
"""The distances whose negative is RAML's reward."""

_OPTIONS = {
    "tau": ("raml",),
    "distance": ("raml",),
    "margin": ("ocd", "teacher", "raml"),
    "teacher": ("teacher",),
    "divergence": ("teacher",),
}


def make_cross_entropy(
    model: Seq2SeqModel,
    *,
    rollout: RolloutOptions | None = None,
    label_smoothing: float = 0.0,
    target: str | TargetRule = "gold",
    tau: float | None = None,
    distance: str | None = None,
    margin: int | None = None,
    teacher: Teacher | None = None,
    divergence: str | None = None,
    unlikelihood: float = 0.0,
    unigram_probs: Any | None = None,
) -> Objective:
    """Makes the objective that teacher forcing, scheduled sampling and free running share.

        loss = sum_t sum_v -w_t(v) log p(v | x_1 ... x_t) / number of tokens

    with x the fed tokens of `RolloutOptions`, and w_t the gold token y_t or another distribution.
    Given x, this is a differentiable function of the parameters, with one loss and one gradient for
    the whole sequence. The gradient equals that of a single scan that samples as it goes. The
    encoder runs once. If the model has a `Replay`, the pass that chooses x also computes the loss;
    otherwise decode_sequence makes a second pass on x, with the same dropout masks.

    The targets:
      gold: y_t, whatever was fed.
      raml: y'_t, where y' has errors that are drawn anew for each sequence and step; y' is fed as
        well; see `draw_targets`.
      ocd: all tokens that can still lead to the smallest edit distance, uniformly; see
        `make_completion_rule`.
      teacher: a teacher's distribution; see `make_distillation_rule`.
    A fed sequence goes on as long as its own tokens do for the last two, not as long as y.

    Args:
      model: the functions of `Seq2SeqModel`.
      rollout: what is fed; None for scheduled sampling as in the paper.
      label_smoothing: see `cross_entropy`; the reported "nll" does not include it.
      target: "gold", "raml", "ocd", "teacher", or a rule of your own.
      tau: of "raml", the temperature of the reward; None for 0.2.
      distance: of "raml": "hamming", exactly, or "edit"; None for the first. See `draw_targets`
        and `draw_edited`.
      margin: of "ocd", "teacher" and "raml" with edits: how many tokens the longest sequence of a
        batch may grow; None for 4.
      teacher: of "teacher": see `make_model_teacher`.
      divergence: of "teacher": "forward_kl", "reverse_kl" or "jsd"; None for the first.
      unlikelihood: of "gold": the weight of a penalty on repeating earlier target tokens; see
        `make_unlikelihood_rule`.
      unigram_probs: for the source "unigram"; see `Feeding`.

    Returns:
      objective(params, batch, key, teacher_prob) -> (loss, metric sums), with the sums "loss",
      "nll" (nats per token), "token_accuracy", "gold_share" (the share of gold among the inputs
      that a coin decided) and "fed_error_rate" (the share of the fed tokens after the start symbol
      that differ from the gold ones). Loss and gradient are NaN if teacher_prob is not in [0, 1];
      the derivative with respect to teacher_prob is 0.

    Raises:
      ValueError: an option is out of range, or another option makes it meaningless.

    Example:
      >>> from s2s_jax.models.tabular import make_tabular_model
      >>> make_cross_entropy(make_tabular_model(8, 8), tau=0.5)
      Traceback (most recent call last):
      ValueError: tau is 0.5; it has no effect unless target is 'raml'
    """
    if isinstance(target, str) and target not in TARGETS:
        raise ValueError(f"target is {target!r}; {did_you_mean(target, TARGETS)}")
    for name, value in (
        ("tau", tau),
        ("distance", distance),
        ("margin", margin),
        ("teacher", teacher),
        ("divergence", divergence),
    ):
        if value is not None and target not in _OPTIONS[name]:
            needed = " or ".join(map(repr, _OPTIONS[name]))
            raise ValueError(f"{name} is {value!r}; it has no effect unless target is {needed}")
    distance = distance or "hamming"
    check_known("distance", distance, DISTANCES)
    if target == "raml" and distance == "hamming" and margin is not None:
        raise ValueError(f"margin is {margin}; it has no effect unless distance is 'edit'")
    tau, margin = 0.2 if tau is None else tau, 4 if margin is None else margin
    if margin < 0:
        raise ValueError(f"margin is {margin}; it must be at least 0")
    if unlikelihood and target != "gold":
        raise ValueError(
            f"unlikelihood is {unlikelihood}; it has no effect unless target is 'gold'"
        )
    if not 0 <= unlikelihood <= 1e6:
        raise ValueError(f"unlikelihood is {unlikelihood}; it must be in [0, 1e6]")
    rule = target if isinstance(target, TargetRule) else None
    if label_smoothing and (rule is not None or target == "teacher"):
        name = "this target" if rule is not None else f"target {target!r}"
        raise ValueError(f"label_smoothing is {label_smoothing}; {name} has none")
    if target == "raml":
        check_raml(model.vocab_size, tau)
    elif target == "ocd":
        rule = make_completion_rule(model.vocab_size, margin, label_smoothing)
    elif target == "teacher":
        if teacher is None:
            raise ValueError("target is 'teacher'; it needs teacher")
        if teacher.vocab_size != model.vocab_size:
            raise ValueError(
                f"teacher has {teacher.vocab_size} target ids; the model has {model.vocab_size}"
            )
        rule = make_distillation_rule(teacher, margin, divergence or "forward_kl")
    elif unlikelihood:
        rule = make_unlikelihood_rule(model.vocab_size, unlikelihood, label_smoothing)
    options = rollout or RolloutOptions()
    forward_pass = make_forward_pass(
        model, options, label_smoothing=label_smoothing, rule=rule, unigram_probs=unigram_probs
    )

    def objective(
        params: Params, batch: Batch, key: jax.Array, teacher_prob: jax.Array
    ) -> tuple[jax.Array, MetricSums]:
        source, source_mask, gold, mask = to_jax(batch)
        wanted, state = gold, None
        if target == "raml":
            if distance == "edit":
                gold, mask = _longer(gold, mask, margin)
                wanted, mask = draw_edited(gold, mask, targets_key(key), model.vocab_size, tau)
            else:
                wanted = draw_targets(gold, mask, targets_key(key), model.vocab_size, tau)
        if rule is not None:
            gold, mask = _longer(gold, mask, rule.margin)
            wanted, state = gold, rule.begin(source, source_mask, gold, mask)
        memory = model.encode(params, source, source_mask, stream_key(key, "dropout"))
        fed, losses = forward_pass(params, memory, wanted, mask, key, teacher_prob, state)
        decided = mask.at[:, 0].set(False)  # no coin decides the start symbol
        # A compiled step cannot raise an error; a NaN loss and gradient cannot be overlooked.
        is_probability = (teacher_prob >= 0) & (teacher_prob <= 1)
        total = losses.loss.total * jnp.where(is_probability, 1.0, jnp.nan)
        metrics = {
            "loss": Mean(total, losses.loss.weight),
            "nll": losses.nll,
            "token_accuracy": losses.accuracy,
            "gold_share": masked_mean(fed.is_gold, decided),
            "fed_error_rate": masked_mean(fed.tokens != gold_inputs(gold), decided),
        }
        return total / jnp.maximum(losses.loss.weight, 1.0), metrics

    optimum = _optimum_of(
        options, target, tau, distance, teacher, label_smoothing, model.vocab_size
    )
    if optimum is not None and not unlikelihood:
        objective.optimum = optimum  # pyright: ignore[reportFunctionMemberAccess]
    return objective


def _longer(target: jax.Array, mask: jax.Array, margin: int) -> tuple[jax.Array, jax.Array]:
    """A target [batch, time] and its mask with room for more tokens."""
    beyond = (0, 0), (0, margin)
    return jnp.pad(target, beyond, constant_values=PAD), jnp.pad(mask, beyond)


def _optimum_of(
    options: RolloutOptions,
    target: str | TargetRule,
    tau: float,
    distance: str,
    teacher: Teacher | None,
    label_smoothing: float,
    vocab_size: int,
) -> Optimum | None:
    """What theory knows of these options; None if they are not covered."""
    covered = RolloutOptions(
        coin=options.coin,
        source=options.source,
        feed=options.feed,
        position=options.position,
        position_k=options.position_k,
        position_floor=options.position_floor,
    )
    has_theory = options.coin != "confidence" and options.source in ("own", "uniform")
    if options != covered or not has_theory or options.is_soft or label_smoothing:
        return None
    if options.position != "none" and options.coin != "token":
        return None

    def of_gold(chains: Chains, teacher_prob: float) -> tuple[np.ndarray, np.ndarray]:
        probs: Any = teacher_prob
        if options.position != "none":
            probs = np.asarray(
                position_probs(
                    jnp.float32(teacher_prob),
                    chains.length - 1,
                    options.position,
                    options.position_k,
                    options.position_floor,
                ),
                np.float64,
            )
        noise = None
        if options.source == "uniform":
            noise = np.full(chains.num_symbols, 1 / chains.num_symbols)
        return optimum_divergences(chains, probs, coin=options.coin, feed=options.feed, noise=noise)

    def of_raml(chains: Chains, teacher_prob: float) -> tuple[np.ndarray, np.ndarray]:
        kl, identified = raml_divergences(chains, tau)
        return kl, identified & (teacher_prob == 1)

    def of_truth(chains: Chains, teacher_prob: float) -> tuple[np.ndarray, np.ndarray]:
        return distillation_divergences(chains, teacher_prob, coin=options.coin, feed=options.feed)

    def of_these_symbols(optimum: Optimum) -> Optimum:
        """Not known if the vocabulary has ids that noise or errors can bring in beside symbols."""

        def checked(chains: Chains, teacher_prob: float) -> tuple[np.ndarray, np.ndarray]:
            kl, identified = optimum(chains, teacher_prob)
            return kl, identified & (chains.num_symbols == vocab_size - NUM_RESERVED)

        return checked

    if target == "gold":
        return of_gold if options.source == "own" else of_these_symbols(of_gold)
    if target == "raml":
        return of_these_symbols(of_raml) if distance == "hamming" else None
    knows = (
        target == "teacher" and teacher is not None and teacher.is_truth and options.source == "own"
    )
    return of_truth if knows and options.position == "none" else None
