import jax.numpy as jnp
import numpy as np

from s2s_jax.models.transformer.positions import rotate, sinusoids


def test_sinusoids_are_the_formula():
    found = np.asarray(sinusoids(jnp.array([0, 3, 100]), 6))
    for row, t in enumerate((0, 3, 100)):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(found[row, i], np.sin(angle), atol=1e-5)
            np.testing.assert_allclose(found[row, 3 + i], np.cos(angle), atol=1e-5)


def test_products_of_rotated_heads_depend_on_the_distance_alone():
    numbers = np.random.default_rng(0)
    queries, keys = (jnp.asarray(numbers.normal(size=(2, 3, 5, 8))) for _ in range(2))

    def scores(shift: int) -> np.ndarray:
        positions = jnp.arange(5) + shift
        rotated = (rotate(one, positions) for one in (queries, keys))
        return np.asarray(jnp.einsum("bntd,bnsd->bnts", *rotated))

    np.testing.assert_allclose(scores(0), scores(17), atol=1e-4)
    unrotated = np.einsum("bntd,bnsd->bnts", queries, keys)
    diagonal = np.arange(5)
    np.testing.assert_allclose(
        scores(4)[..., diagonal, diagonal], unrotated[..., diagonal, diagonal], atol=1e-4
    )
    assert np.abs(scores(0) - unrotated).max() > 0.1
    np.testing.assert_allclose(
        jnp.linalg.norm(rotate(queries, jnp.arange(5)), axis=-1),
        jnp.linalg.norm(queries, axis=-1),
        atol=1e-5,
    )
