"""Data: TFDS builders, vocabularies, bucketed batches, generated tasks."""
