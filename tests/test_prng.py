import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.prng import STREAMS, per_step_keys, stream_key

KEY = jax.random.key(0)


def test_streams_and_steps_have_different_keys():
    keys = [KEY, *(stream_key(KEY, name) for name in STREAMS)]
    keys += [stream_key(jax.random.fold_in(KEY, 1), name) for name in STREAMS]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys)


def test_a_stream_is_the_same_in_another_process():
    code = (
        "import jax; from s2s_jax.prng import stream_key;"
        "print(jax.random.key_data(stream_key(jax.random.key(0), 'coins')).tolist())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str(jax.random.key_data(stream_key(KEY, "coins")).tolist())


def test_a_traced_step_under_jit_and_vmap_gives_the_same_keys():
    steps = jnp.arange(4)
    traced = jax.jit(jax.vmap(lambda step: stream_key(jax.random.fold_in(KEY, step), "samples")))(
        steps
    )
    assert jnp.all(
        traced
        == jnp.stack([stream_key(jax.random.fold_in(KEY, step), "samples") for step in range(4)])
    )


def test_an_unknown_stream_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="key stream is 'coin'; did you mean 'coins'"):
        stream_key(KEY, "coin")


def test_per_step_keys_are_fold_ins_and_do_not_depend_on_their_number():
    keys = per_step_keys(KEY, 5)
    assert keys.shape == (5,)
    assert all(keys[t] == jax.random.fold_in(KEY, t) for t in range(5))
    assert jnp.all(per_step_keys(KEY, 3) == keys[:3])


def test_scanned_keys_give_a_new_coin_at_each_step():
    def toss(_, key):
        return None, jax.random.uniform(key, (64,))

    _, coins = jax.lax.scan(toss, None, per_step_keys(KEY, 50))
    assert np.unique(coins).size > 0.99 * coins.size
    assert abs(float(coins.mean()) - 0.5) < 0.03
