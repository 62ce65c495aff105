"""What every room of the lab stands on: errors, files, locks, tables, figures, processes."""
