"""Models, and the functions that the rest of the package needs of one."""
