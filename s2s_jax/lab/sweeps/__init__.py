"""`s2s sweep`: its plan, its processes, what it shows."""
