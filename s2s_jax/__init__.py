"""s2s_jax: a laboratory for exposure bias in sequence-to-sequence models."""
