"""Trains the run that a config describes."""
