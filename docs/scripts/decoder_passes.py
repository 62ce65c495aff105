"""Measures what a decoder passes itself, for docs/what_does_the_decoder_pass_itself.md.

    python docs/scripts/decoder_passes.py [--output docs/images] [--quick]

Trains small spelling-to-phoneme models on CMUdict with teacher forcing, scheduled sampling and
free running, prints the page's tables in Markdown and writes its figures. Seeds are fixed.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from decoder_figures import accuracy_figure, gradient_figure, state_figure
from decoder_measures import (
    GradientRow,
    Interval,
    Measure,
    Scores,
    compare_gradients,
    compare_states,
    compare_sums,
    make_gradients,
    make_predict,
    make_states,
    score,
)

from s2s_jax.batch import Batch
from s2s_jax.data.cmudict import dictionary_path, parse_dictionary, split_dictionary
from s2s_jax.data.pairs import Pairs
from s2s_jax.data.task import Task, Vocabularies
from s2s_jax.lab.base.seed_statistics import estimate
from s2s_jax.metrics import Mean
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.models.rnn import make_rnn_model
from s2s_jax.objectives import make_cross_entropy
from s2s_jax.schedules import Schedule, constant, linear, teacher_forcing
from s2s_jax.training import TrainState, init_train_state, make_train_step

LONGEST = 11  # letters, and phonemes, of a word: one shape of batch, so one compilation


@dataclass(frozen=True)
class Sizes:
    """How much is trained and measured."""

    hidden_size: int = 64
    embedding_size: int = 32
    batch_size: int = 64
    num_steps: int = 800
    early_step: int = 100
    steps_a_call: int = 50
    num_seeds: int = 3
    num_train: int = 200_000  # at most; CMUdict has fewer
    num_scored: int = 3000
    num_gradients: int = 320
    gradients_a_call: int = 16


QUICK = Sizes(8, 4, 8, 8, 4, 4, 2, 64, 32, 16, 8)


@dataclass(frozen=True)
class Findings:
    """Everything that tables and figures show.

    Attributes:
      scores: one a seed, by training method.
      states: of `compare_states`, by training method.
      gradients: of `compare_gradients`, by moment of the training.
      sums: of `compare_sums`, by moment of the training.
      words: that were scored.
    """

    scores: dict[str, list[Scores]]
    states: dict[str, dict[str, tuple[Interval, Interval]]]
    gradients: dict[str, dict[str, GradientRow]]
    sums: dict[str, tuple[Interval, ...]]
    words: Batch


def load_words(num_train: int) -> Task:
    """CMUdict's words of at most `LONGEST` letters and as many phonemes, in random order."""
    lines = dictionary_path().read_text(encoding="utf-8").splitlines()
    splits = {}
    for name, pairs in split_dictionary(parse_dictionary(lines)).items():
        rows = zip(pairs.sources, pairs.targets, pairs.references, strict=True)
        kept = [row for row in rows if max(len(row[0]), len(row[1].split())) <= LONGEST]
        print(f"{name}: {len(kept):,} of {len(pairs):,} pairs are short enough", flush=True)
        drawn = np.random.default_rng(0).permutation(len(kept))[:num_train]
        sources, targets, references = zip(*(kept[place] for place in drawn), strict=True)
        splits[name] = Pairs(list(sources), list(targets), list(references))
    return Task(splits, Vocabularies.train(splits["train"], "characters", "whitespace", 0))


def make_trainer(
    model: Seq2SeqModel, task: Task, sizes: Sizes
) -> Callable[[str, Schedule], dict[int, Params]]:
    """Makes train(name, schedule) -> {step: params}: all seeds as one population.

    The leaves of params have the seed as their first axis. One program serves all schedules.
    """
    learning_rate = optax.cosine_decay_schedule(4e-3, sizes.num_steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))
    objective = make_cross_entropy(model)
    seeds = range(sizes.num_seeds)
    orders = [task.training_batches(1, sizes.batch_size, seed) for seed in seeds]

    start = jax.jit(jax.vmap(lambda key: init_train_state(model, optimizer, key)))

    @jax.jit
    def train_steps(
        states: TrainState, batches: Batch, teacher_probs: jax.Array
    ) -> tuple[TrainState, Mean]:
        def step(states: TrainState, inputs: tuple[Batch, jax.Array]) -> tuple[TrainState, Mean]:
            batch, teacher_prob = inputs
            # One teacher_prob for all seeds: at 1 the rollout is skipped, under vmap as well.
            train_step = make_train_step(objective, optimizer, lambda step: teacher_prob)
            states, sums = jax.vmap(train_step)(states, batch)
            return states, sums["nll"]

        return jax.lax.scan(step, states, (batches, teacher_probs))

    def stack(steps: range) -> Batch:
        """Batches as [steps, seeds, ...]."""
        some = [[orders[seed][step] for seed in seeds] for step in steps]
        return Batch(
            *(
                np.stack([[batch[part] for batch in row] for row in some])
                for part in range(len(Batch._fields))
            )
        )

    def train(name: str, schedule: Schedule) -> dict[int, Params]:
        keys = jax.vmap(jax.random.key)(jnp.arange(sizes.num_seeds))
        states = start(keys)
        kept, begin = {0: states.params}, time.perf_counter()
        for first in range(0, sizes.num_steps, sizes.steps_a_call):
            steps = range(first, first + sizes.steps_a_call)
            teacher_probs = jax.vmap(schedule)(jnp.arange(steps.start, steps.stop))
            states, nll = train_steps(states, stack(steps), teacher_probs)
            if steps.stop in (sizes.early_step, sizes.num_steps):
                kept[steps.stop] = states.params
            if steps.stop % 200 == 0 or steps.stop == sizes.num_steps:
                loss = float(np.mean(np.asarray(nll.total) / np.asarray(nll.weight)))
                seconds = time.perf_counter() - begin
                print(f"{name}: step {steps.stop}, nll {loss:.3f}, {seconds:.0f} s", flush=True)
        return kept

    return train


def of_seed(params: Params, seed: int) -> Params:
    """The parameters of one member of a population."""
    return jax.tree.map(lambda leaf: leaf[seed], params)


def measure(
    function: Measure, params: Params, words: Batch, words_a_call: int
) -> dict[str, np.ndarray]:
    """A measure of all words, some at a time: a gradient for each of their steps is large."""
    parts = []
    for start in range(0, len(words.target), words_a_call):
        some = Batch(*(column[start : start + words_a_call] for column in words))
        parts.append(jax.device_get(function(params, some)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def find(sizes: Sizes) -> Findings:
    """Trains the models and measures them."""
    task = load_words(sizes.num_train)
    model = make_rnn_model(
        len(task.vocabularies.source),
        len(task.vocabularies.target),
        hidden_size=sizes.hidden_size,
        embedding_size=sizes.embedding_size,
    )
    train = make_trainer(model, task, sizes)
    schedules = {
        "teacher forcing": teacher_forcing(),
        "scheduled sampling": linear(reach_teacher_prob=0.0, reach_step=sizes.num_steps),
        "free running": constant(0.0),
    }
    trained = {name: train(name, schedule) for name, schedule in schedules.items()}
    end = sizes.num_steps
    dev = task.tokens("dev")
    shape = (LONGEST + 1, LONGEST + 1)  # EOS counted
    words = dev.batch(np.arange(min(sizes.num_scored, len(dev))), shape)

    print("scores", flush=True)
    predict = jax.jit(make_predict(model))
    scores = {
        name: [
            score(jax.device_get(predict(of_seed(kept[end], seed), words)), words)
            for seed in range(sizes.num_seeds)
        ]
        for name, kept in trained.items()
    }
    print("states", flush=True)
    state_measure = jax.jit(make_states(model))
    states = {
        name: compare_states(jax.device_get(state_measure(of_seed(trained[name][end], 0), words)))
        for name in ("teacher forcing", "scheduled sampling")
    }
    gradient_measure = jax.jit(make_gradients(model))
    few = Batch(*(column[: sizes.num_gradients] for column in words))
    gradients, sums = {}, {}
    for moment, step in {"start": 0, "early": sizes.early_step, "end": end}.items():
        print(f"gradients, {moment}: every step of {len(few.target)} words", flush=True)
        params = of_seed(trained["teacher forcing"][step], 0)
        found = measure(gradient_measure, params, few, sizes.gradients_a_call)
        gradients[moment] = compare_gradients(found)
        sums[moment] = compare_sums(found["gold_after"], found["own_after"])
    return Findings(scores, states, gradients, sums, words)


def table(name: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown, between the marks that the page has around its copy."""
    lines = [headings, [":--", *["--:"] * (len(headings) - 1)], *rows]
    body = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    return f"<!-- table: {name} -->\n{body}\n<!-- /table -->"


def percent(shares: Iterable[float]) -> str:
    """A mean over seeds in percent, with half its 95 % t-interval."""
    found = estimate(100 * share for share in shares)
    return f"{found.mean:.1f} ± {found.half_width:.1f}"


def make_tables(found: Findings) -> list[str]:
    """The page's tables."""
    num_words = f"{len(found.words.target):,}"
    moments = [
        [moment, name, *row, f"{row.cosine.num_steps:,}", row.cosine.num_words]
        for moment, rows in found.gradients.items()
        for name, row in rows.items()
    ]
    sums = [[moment, *row, row[0].num_words] for moment, row in found.sums.items()]
    states = [
        [method, since, *row, f"{row[0].num_steps:,}", f"{row[0].num_words:,}"]
        for method, rows in found.states.items()
        for since, row in rows.items()
    ]
    scores = [
        [
            method,
            prefixes,
            percent(one.token_accuracy[side] for one in seeds),
            percent(one.exact_match[side] for one in seeds),
            percent(one.after_error[side] for one in seeds),
            len(seeds),
            num_words,
        ]
        for method, seeds in found.scores.items()
        for side, prefixes in enumerate(("gold", "own"))
    ]
    identity = [
        [
            method,
            f"{sum(one.num_compared for one in seeds):,}",
            sum(one.num_differing for one in seeds),
            len(seeds),
            num_words,
        ]
        for method, seeds in found.scores.items()
    ]
    cosine = "cosine with gold-fed"
    with_gold = "own-fed with gold-fed"
    count = ["steps", "words"]
    return [
        table(
            "identity",
            ["trained with", "tokens up to the first wrong one", "differing", "seeds", "words"],
            identity,
        ),
        table(
            "states",
            ["trained with", "steps since", "distance", "with one wrong token so far", *count],
            states,
        ),
        table(
            "gradients",
            ["training", "wrong tokens fed so far", cosine, "length, own / gold", *count],
            moments,
        ),
        table(
            "sums",
            [
                "training",
                f"{with_gold}, same words",
                f"{with_gold}, other words",
                "gold-fed with gold-fed, other words",
                "own-fed with own-fed, other words",
                "words",
            ],
            sums,
        ),
        table(
            "scores",
            [
                "trained with",
                "prefixes",
                "tokens right %",
                "words right %",
                "tokens right after the first error %",
                "seeds",
                "words",
            ],
            scores,
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, measures, prints the tables and writes the figures."""
    parser = argparse.ArgumentParser(description="Measures what a decoder passes itself.")
    parser.add_argument("--output", type=Path, default=Path("docs/images"), help="of the figures")
    parser.add_argument("--quick", action="store_true", help="tiny: to see whether it runs")
    options = parser.parse_args(arguments)
    begin = time.perf_counter()
    found = find(QUICK if options.quick else Sizes())
    print("", *make_tables(found), sep="\n\n")
    figures = {
        "gradient": gradient_figure(found.gradients),
        "state": state_figure(found.states),
        "accuracy": accuracy_figure(found.scores, np.asarray(found.words.target_mask).sum(0)),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(options.output / f"decoder_{name}.png", dpi=110)
    seconds = time.perf_counter() - begin
    print(f"\n{len(figures)} figures are in {options.output}; {seconds:.0f} s")


if __name__ == "__main__":
    main()
