"""`s2s sweep`: its plan, its processes and its display."""
