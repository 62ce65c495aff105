"""Tiny models, batches and a quick compiler, shared by the tests of the core."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import Batch
from s2s_jax.models.interface import Features, Params, Replay, Seq2SeqModel, Vectors
from s2s_jax.models.rnn.functions import make_rnn_model
from s2s_jax.models.transformer import make_transformer_model

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
def make_transformer() -> Callable[..., tuple[Seq2SeqModel, Params]]:
    """Makes a tiny Transformer and parameters large enough for its choices to vary."""

    def make(seed: int = 0, scale: float = 0.4, **options: Any) -> tuple[Seq2SeqModel, Params]:
        sizes: dict[str, Any] = {
            "hidden_size": 8,
            "num_heads": 2,
            "mlp_size": 12,
            "num_encoder_layers": 1,
            "num_decoder_layers": 1,
            "dropout": 0.0,
        }
        model = make_transformer_model(VOCAB_SIZE, VOCAB_SIZE, **sizes | options)
        generator = np.random.default_rng(seed)
        return model, jax.tree.map(
            lambda leaf: jnp.asarray(leaf + generator.normal(0, scale, leaf.shape), leaf.dtype),
            jax.jit(model.init)(jax.random.key(seed)),
        )

    return make


@pytest.fixture(scope="session")
def make_table_model() -> Callable[[int], Seq2SeqModel]:
    """Makes a user's own model from plain functions: logits looked up by the last token only."""

    def make(vocab_size: int) -> Seq2SeqModel:
        return Seq2SeqModel(
            init=lambda key: jnp.zeros((vocab_size, vocab_size)),
            encode=lambda params, source, source_mask, dropout_key: source[:, 0],
            initial_carry=lambda params, memory, max_length: memory,
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


class Elman:
    """A recurrent model in plain JAX that can be fed vectors, and the same in float64.

        h_t = tanh(h_{t-1} A + v_t),   logits_t = h_t B,   h_0 = S[first source id]

    Attributes:
      params: its float64 arrays.
      model: the functions, in JAX.
      replayed: the same model with a `Replay`, whose features are the states.
    """

    def __init__(self, vocab_size: int, size: int = 3, seed: int = 0):
        generator = np.random.default_rng(seed)
        shapes = {
            "start": (VOCAB_SIZE, size),
            "embedding": (vocab_size, size),
            "recurrence": (size, size),
            "output": (size, vocab_size),
        }
        self.params = {name: generator.normal(0, 1, shape) for name, shape in shapes.items()}

        def vector_step(params: Params, memory: Any, state: Any, vectors: Any) -> Any:
            state = jnp.tanh(state @ params["recurrence"] + vectors)
            return state, state @ params["output"]

        def decode_step(params: Params, memory: Any, state: Any, token: Any) -> Any:
            return vector_step(params, memory, state, params["embedding"][token])

        def decode_sequence(params: Params, memory: Any, tokens: Any) -> Any:
            def step(state: Any, token: Any) -> Any:
                return decode_step(params, memory, state, token)

            return jax.lax.scan(step, memory, tokens.T)[1].swapaxes(0, 1)

        self.model = Seq2SeqModel(
            init=lambda key: self.float32,
            encode=lambda params, source, source_mask, key: params["start"][source[:, 0]],
            initial_carry=lambda params, memory, max_length: memory,
            decode_step=decode_step,
            decode_sequence=decode_sequence,
            vocab_size=vocab_size,
            vectors=Vectors(lambda params: params["embedding"], vector_step),
        )

        def trace_step(params: Params, memory: Any, state: Any, token: Any) -> Any:
            state, _ = decode_step(params, memory, state, token)
            return state, state, ()

        def trace_sequence(params: Params, memory: Any, tokens: Any) -> Any:
            def step(state: Any, token: Any) -> Any:
                return trace_step(params, memory, state, token)[:2]

            return jax.lax.scan(step, memory, tokens)[1], ()

        replay = Replay(
            step=trace_step,
            sequence=trace_sequence,
            replay=lambda params, memory, tokens, *_: trace_sequence(params, memory, tokens)[0],
        )
        features = Features(
            sequence=lambda *args: trace_sequence(*args)[0],
            output=lambda params: (params["output"], jnp.zeros(vocab_size)),
        )
        self.replayed = dataclasses.replace(self.model, replay=replay, features=features)

    @property
    def float32(self) -> Params:
        return jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), self.params)

    @staticmethod
    def step(params: Params, state: np.ndarray, vectors: np.ndarray) -> Any:
        """(state, log-probabilities) of a step, in float64."""
        state = np.tanh(state @ params["recurrence"] + vectors)
        logits = state @ params["output"]
        return state, logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    def log_probs(self, params: Params, source: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """[batch, time, vocab_size] after fed tokens [batch, time], in float64."""
        state, steps = params["start"][source[:, 0]], []
        for token in np.asarray(tokens).T:
            state, log_probs = self.step(params, state, params["embedding"][token])
            steps.append(log_probs)
        return np.stack(steps, axis=1)

    def slopes(self, loss: Callable[[Params], float]) -> Params:
        """The gradient of a loss of the float64 parameters, by central differences."""
        params = jax.tree.map(np.copy, self.params)
        gradient = jax.tree.map(np.zeros_like, params)
        for name, array in params.items():
            for place in np.ndindex(array.shape):
                value, sides = array[place], []
                for shift in (1e-5, -1e-5):
                    array[place] = value + shift
                    sides.append(loss(params))
                array[place] = value
                gradient[name][place] = (sides[0] - sides[1]) / 2e-5
        return gradient


@pytest.fixture(scope="session")
def make_elman() -> Callable[..., Elman]:
    """Makes a tiny model whose gradients can be held against float64 differences."""
    return Elman
