"""The evaluation of a model: its scores, and the examples that are shown."""
