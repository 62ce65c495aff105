"""A run's folder: its name, its files, its checkpoints, its logs."""
