"""Evaluates a task: metrics with both kinds of prefixes, the task's scores, and examples."""

import contextlib
import copy
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import Batch, gold_inputs
from s2s_jax.data.task import EvaluationData, Task
from s2s_jax.decoding import greedy
from s2s_jax.evaluation import EvaluateStep, evaluate, make_evaluate_step
from s2s_jax.lab.base.decorations import Attempt
from s2s_jax.lab.base.files import write_atomic
from s2s_jax.lab.base.metric_catalog import ACCURACIES, Catalog
from s2s_jax.lab.evaluation.divergence import Divergence
from s2s_jax.lab.evaluation.pictures import attention_picture, examples_table
from s2s_jax.lab.evaluation.scores import EXACT_MATCH, Scorer
from s2s_jax.lab.runs.tracking import Tracker
from s2s_jax.models.interface import Params, Seq2SeqModel


class Evaluator:
    """Evaluates one model on the splits of its task.

    Args:
      model: the functions of `Seq2SeqModel`.
      task: the splits.
      scorer: scores hypotheses.
      batch_size: number of rows in a batch.
      max_examples: number of dev examples that `dev` uses; 0 for all.
      num_shown: number of examples in `show`.
      divergence: for the dev split, if its true distribution is known; otherwise None.
    """

    def __init__(
        self,
        model: Seq2SeqModel,
        task: Task,
        *,
        scorer: Scorer,
        batch_size: int,
        max_examples: int = 0,
        num_shown: int = 0,
        divergence: Divergence | None = None,
    ):
        self._divergence = divergence
        self._model, self._task, self._batch_size = model, task, batch_size
        self.scorer, self._num_shown = scorer, num_shown
        self._dev = task.evaluation("dev", batch_size, max_examples)
        self._steps: dict[int, EvaluateStep] = {}
        self._decode = jax.jit(partial(_decode_with_attention, model), static_argnums=2)
        self.headline = scorer.headline

    @property
    def catalog(self) -> Catalog:
        """How its metrics are shown."""
        return self.scorer.catalog

    def with_divergence(self, divergence: Divergence | None) -> "Evaluator":
        """The same evaluator for another run of the task; compiled functions are shared."""
        other = copy.copy(self)
        other._divergence = divergence
        return other

    def dev(self, params: Params) -> dict[str, float]:
        """The dev split's metrics, named "eval/gold/nll", "eval/own/wer" and so on."""
        return self._evaluate(params, "dev", "eval", self._dev)[0]

    def rehearse(self, params: Params) -> None:
        """Traces an evaluation and scores references, so that what fails does so before training.

        Args:
          params: arrays, or their shapes.
        """
        step = make_evaluate_step(self._model, max_length=2)
        _, batch = next(iter(self._dev))
        jax.eval_shape(step, params, batch)
        references = self._dev.references
        self.scorer([accepted[0] for accepted in references], references)

    def split(
        self, params: Params, split: str, predictions: Path | None = None
    ) -> dict[str, float]:
        """A whole split's metrics, with the split as prefix ("eval" for dev).

        Args:
          params: the model's parameters.
          split: the split's name.
          predictions: a file for the hypotheses, with one JSON object per line; None for none.
        """
        data = self._task.evaluation(split, self._batch_size)
        prefix = "eval" if split == "dev" else split
        metrics, texts = self._evaluate(params, split, prefix, data)
        if predictions is not None:
            rows = zip(data.sources, data.references, texts, strict=True)
            lines = (
                json.dumps(
                    {"source": source, "references": list(references), "hypothesis": text},
                    ensure_ascii=False,
                )
                for source, references, text in rows
            )
            write_atomic(predictions, "".join(line + "\n" for line in lines))
        return metrics

    @property
    def knows_the_truth(self) -> bool:
        """Whether the true distribution is known, so that `divergence` has values."""
        return self._divergence is not None

    def divergence(self, params: Params) -> dict[str, float]:
        """The dev split's "eval/kl_to_truth" and related metrics; {} if the truth is not known."""
        found = {} if self._divergence is None else self._divergence(params)
        return {f"eval/{name}": value for name, value in found.items()}

    def cost(self, metrics: Mapping[str, float]) -> float:
        """The value that selects the best checkpoint, from dev metrics; lower is better."""
        value = metrics[f"eval/own/{self.headline}"]
        return -value if self.scorer.metrics[0].better == "higher" else value

    def summary(self, metrics: Mapping[str, float]) -> str:
        """The main metrics of one split on one line: gold and own prefixes side by side."""
        split = next(iter(metrics)).split("/")[0]
        names = [f"{split}/{one}" for one in (f"own/{self.headline}", *reversed(ACCURACIES))]
        return "  ".join(
            f"{name} {self.catalog.describe(name).text(metrics[name])}" for name in names
        )

    def show(
        self,
        params: Params,
        tracker: Tracker,
        step: int,
        attempt: Attempt = contextlib.nullcontext,
    ) -> None:
        """Logs decoded dev examples as text, and the attention weights of the first one.

        Args:
          params: the model's parameters.
          tracker: logs them.
          step: the training step.
          attempt: the context in which each is made, such as `Decorations.attempt`.
        """
        tokens = self._dev.tokens
        count = min(self._num_shown, len(tokens))
        if not count:
            return
        with attempt("examples"):
            # Spread over the split, which may be sorted.
            chosen = np.linspace(0, len(tokens) - 1, count + 2).astype(int)[1:-1]
            shape = (
                int(tokens.source.lengths[chosen].max()),
                int(tokens.target.lengths[chosen].max()),
            )
            batch = tokens.batch(chosen, shape)
            length = self._task.max_decode_length("dev", self._model.max_length)
            decoded, weights = jax.device_get(self._decode(params, batch, length))
            vocabularies = self._task.vocabularies
            texts = [vocabularies.target.decode(row.tolist()) for row in decoded.tokens]
            every_source, every_reference = self._dev.sources, self._dev.references
            sources = [every_source[index] for index in chosen]
            references = [every_reference[index] for index in chosen]
            tracker.text(step, "eval/examples", examples_table(sources, references, texts))
            if weights is None:
                return
            with attempt("attention picture"):
                num_source = int(batch.source_mask[0].sum())
                num_target = int(decoded.lengths[0])
                picture = attention_picture(
                    weights[0, :num_target, :num_source],
                    vocabularies.source.labels(batch.source[0, :num_source].tolist()),
                    vocabularies.target.labels(decoded.tokens[0, :num_target].tolist()),
                )
                tracker.image(step, "eval/attention", picture)

    def _evaluate(
        self, params: Params, split: str, prefix: str, data: EvaluationData
    ) -> tuple[dict[str, float], list[str]]:
        self._task.check_lengths(split, self._model.max_length)
        length = self._task.max_decode_length(split, self._model.max_length)
        if length not in self._steps:
            self._steps[length] = jax.jit(make_evaluate_step(self._model, length))
        metrics, hypotheses = evaluate(self._steps[length], params, data)
        texts = [self._task.vocabularies.target.decode(ids) for ids in hypotheses]
        scores = self.scorer(texts, data.references)
        # Computed from text, like all other scores: a target's ids need not decode to its text.
        metrics["own/exact_match"] = EXACT_MATCH(texts, data.references)
        metrics |= {f"own/{name}": value for name, value in scores.items()}
        metrics = {f"{prefix}/{name}": value for name, value in metrics.items()}
        return metrics | (self.divergence(params) if split == "dev" else {}), texts


def _decode_with_attention(model: Seq2SeqModel, params: Params, batch: Batch, max_length: int):
    """Greedy hypotheses, and the attention weights of the decoder, or None without attention."""
    memory = model.encode(params, jnp.asarray(batch.source), jnp.asarray(batch.source_mask), None)
    decoded = greedy(model, params, memory, max_length)
    if model.attention_weights is None:
        return decoded, None
    return decoded, model.attention_weights(params, memory, gold_inputs(decoded.tokens))
