"""Every program is made for GPU and TPU as well, as far as that can be seen without one."""

from functools import partial

import jax
import numpy as np
import optax
import pytest

from s2s_jax.batch import Batch
from s2s_jax.decoding import beam_search
from s2s_jax.evaluation import make_evaluate_step
from s2s_jax.models.rnn.functions import make_rnn_model
from s2s_jax.objectives import make_cross_entropy
from s2s_jax.training import init_train_state, make_train_step


def shapes(tree, lanes=()):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*lanes, *leaf.shape), leaf.dtype), tree)


@pytest.mark.parametrize(("cell", "dtype"), [("lstm", "float32"), ("gru", "bfloat16")])
@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_programs_lower_for_accelerators(platform, cell, dtype):
    model = make_rnn_model(
        9, 11, hidden_size=8, embedding_size=4, cell=cell, dtype=dtype, dropout=0.1
    )
    optimizer = optax.adamw(1e-3)
    objective = make_cross_entropy(model)
    init = partial(init_train_state, model, optimizer)
    state = jax.eval_shape(init, jax.random.key(0))
    tokens = np.ones((2, 3), np.int32)
    batch = shapes(Batch(tokens, tokens > 0, tokens, tokens > 0))
    teacher_prob = jax.ShapeDtypeStruct((), np.float32)

    def update(state, batch, teacher_prob):
        return make_train_step(objective, optimizer, lambda step: teacher_prob)(state, batch)

    def beam(params, batch):
        memory = model.encode(params, batch.source, batch.source_mask, None)
        return beam_search(model, params, memory, 5, beam_size=2)

    def barriers(function, arguments, platform):
        program = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,))
        return program.as_text().count("optimization_barrier")

    for function, arguments in (
        (init, (jax.eval_shape(lambda: jax.random.key(0)),)),
        (jax.vmap(update), (shapes(state, (2,)), shapes(batch, (2,)), shapes(teacher_prob, (2,)))),
        (make_evaluate_step(model, 5), (state.params, batch)),
        (beam, (state.params, batch)),
    ):
        barriers(function, arguments, platform)
    # `inputs_gradient` uses the order that suits a CPU on a CPU only.
    step = update, (state, batch, teacher_prob)
    assert barriers(*step, platform) < barriers(*step, "cpu")
