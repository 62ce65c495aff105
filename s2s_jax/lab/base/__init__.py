"""Shared foundations of the lab: errors, files, locks, tables, figures, processes."""
