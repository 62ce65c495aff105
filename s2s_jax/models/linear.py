"""Products with weight matrices, with gradients that avoid copies and keep the right precision."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def linear(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """`inputs @ kernel`, with the gradient of the weights computed in the faster order.

        d_kernel = inputs^T d_outputs

    JAX derives (d_outputs^T inputs)^T. On a CPU the left-hand matrix is copied to transpose it, and
    in JAX's order that is the larger one: in a recurrent layer it is four gates wide.

    Args:
      inputs: [..., num_inputs].
      kernel: [num_inputs, num_outputs], of the inputs' dtype.

    Returns:
      [..., num_outputs].

    Example:
      >>> linear(jnp.ones((2, 3)), jnp.ones((3, 4))).tolist()
      [[3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 3.0, 3.0]]
    """
    return inputs @ kernel


def _forward(inputs: jax.Array, kernel: jax.Array):
    return inputs @ kernel, (inputs, kernel)


def _backward(kept: tuple[jax.Array, jax.Array], d_outputs: jax.Array):
    inputs, kernel = kept
    return d_outputs @ kernel.T, weights_gradient(inputs, d_outputs)


linear.defvjp(_forward, _backward)


def inputs_gradient(d_outputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """The gradient of a product's inputs, for when these have fewer rows than the weights.

        d_inputs = d_outputs kernel^T

    On a CPU the right-hand matrix is packed at every call, so there the weights, which are the
    larger matrix in a scan, are put on the left.

    Args:
      d_outputs: [batch, num_outputs].
      kernel: [num_inputs, num_outputs], of the same dtype.

    Returns:
      [batch, num_inputs].

    Example:
      >>> inputs_gradient(jnp.ones((2, 4)), jnp.ones((3, 4))).tolist()
      [[4.0, 4.0, 4.0], [4.0, 4.0, 4.0]]
    """

    def weights_left(d_outputs: jax.Array, kernel: jax.Array) -> jax.Array:
        # Without the barrier the compiler would swap the operands back.
        return jax.lax.optimization_barrier(kernel @ d_outputs.T).T

    def as_written(d_outputs: jax.Array, kernel: jax.Array) -> jax.Array:
        return d_outputs @ kernel.T

    return jax.lax.platform_dependent(d_outputs, kernel, cpu=weights_left, default=as_written)


def weights_gradient(
    inputs: jax.Array, d_outputs: jax.Array, dtype: jnp.dtype | None = None
) -> jax.Array:
    """The gradient [num_inputs, num_outputs] of a product's weights, summed over all other axes.

    Its dtype is `dtype`, by default that of the inputs.
    """
    # einsum would sum over the axes in an order other than that in memory, and copy both arrays.
    inputs, d_outputs = (array.reshape(-1, array.shape[-1]) for array in (inputs, d_outputs))
    return jnp.einsum("ni,no->io", inputs, d_outputs, preferred_element_type=dtype)


def compute_logits(features: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """The logits of features [..., num_features], in float32 whatever the features' dtype.

    All logits of a model are computed here. If they were rounded to bfloat16, the two highest would
    often be equal.
    """
    return jnp.matmul(features, kernel, preferred_element_type=jnp.float32) + bias


@jax.custom_vjp
def add_bias(inputs: jax.Array, bias: jax.Array) -> jax.Array:
    """`inputs + bias`, with the gradient of the bias summed in float32.

    Args:
      inputs: [..., size].
      bias: [size] float32, added in the inputs' dtype.

    Example:
      >>> add_bias(jnp.ones((2, 3), jnp.bfloat16), jnp.ones(3)).dtype
      dtype(bfloat16)
    """
    return inputs + bias.astype(inputs.dtype)


def _add_bias_backward(_: None, d_outputs: jax.Array):
    return d_outputs, bias_gradient(d_outputs)


add_bias.defvjp(lambda inputs, bias: (add_bias(inputs, bias), None), _add_bias_backward)


def bias_gradient(d_outputs: jax.Array) -> jax.Array:
    """The gradient [size] of a bias, summed over all other axes in float32."""
    return d_outputs.reshape(-1, d_outputs.shape[-1]).sum(0, dtype=jnp.float32)
