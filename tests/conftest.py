"""Tiny models, batches and a quick compiler, shared by the tests of the core."""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import Batch
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.models.rnn.functions import make_rnn_model

VOCAB_SIZE = 10


def pytest_configure(config: pytest.Config) -> None:
    """Tiny programs compile twice as fast without optimisation; also applies to subprocesses."""
    if config.option.markexpr != "gpu":
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


@pytest.fixture(scope="session")
def make_rnn() -> Callable[..., tuple[Seq2SeqModel, Params]]:
    """Makes a tiny recurrent model and parameters large enough for its choices to vary."""

    def make(seed: int = 0, scale: float = 0.7, **options: Any) -> tuple[Seq2SeqModel, Params]:
        sizes: dict[str, Any] = {"hidden_size": 8, "embedding_size": 6} | options
        model = make_rnn_model(VOCAB_SIZE, VOCAB_SIZE, **sizes)
        generator = np.random.default_rng(seed)
        return model, jax.tree.map(
            lambda leaf: jnp.asarray(generator.normal(0, scale, leaf.shape), leaf.dtype),
            jax.eval_shape(model.init, jax.random.key(0)),
        )

    return make


@pytest.fixture(scope="session")
def make_table_model() -> Callable[[int], Seq2SeqModel]:
    """Makes a user's own model from plain functions: logits looked up by the last token only."""

    def make(vocab_size: int) -> Seq2SeqModel:
        return Seq2SeqModel(
            init=lambda key: jnp.zeros((vocab_size, vocab_size)),
            encode=lambda params, source, source_mask, dropout_key: source[:, 0],
            initial_carry=lambda params, memory: memory,
            decode_step=lambda params, memory, carry, token: (carry, params[token]),
            decode_sequence=lambda params, memory, tokens: params[tokens],
            vocab_size=vocab_size,
        )

    return make


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    """Makes a batch of lists of ids, padded to the longest or to the given lengths and rows."""

    def pad(rows: list[list[int]], time: int, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        ids = np.zeros((max(num_rows, len(rows)), max(time, *map(len, rows))), np.int32)
        mask = np.zeros(ids.shape, bool)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = True
        return ids, mask

    def make(
        sources: list[list[int]],
        targets: list[list[int]],
        source_time: int = 0,
        time: int = 0,
        num_rows: int = 0,
    ) -> Batch:
        return Batch(*pad(sources, source_time, num_rows), *pad(targets, time, num_rows))

    return make


SOURCES = [[4, 5, 6, 7, 8, 2], [9, 4, 2], [5, 5, 7, 2], [8, 6, 4, 9, 2]]
TARGETS = [[4, 5, 6, 7, 2], [8, 2], [9, 9, 5, 2], [6, 4, 2]]


@pytest.fixture(scope="session")
def batch(make_batch: Callable[..., Batch]) -> Batch:
    """Four pairs of unequal lengths: source [4, 6], target [4, 5]."""
    return make_batch(SOURCES, TARGETS)


@pytest.fixture(scope="session")
def padded_batch(make_batch: Callable[..., Batch]) -> Batch:
    """The same pairs in a longer bucket, with three filler rows."""
    return make_batch(SOURCES, TARGETS, source_time=8, time=8, num_rows=7)
