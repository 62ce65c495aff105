"""Models, and the interface that the rest of the package uses."""
