"""What is timed: `python -m benchmarks` runs every part, `python -m benchmarks.PART` one."""
