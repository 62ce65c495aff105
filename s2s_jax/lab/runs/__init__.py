"""Run folders: names, files, checkpoints and logs; collecting finished runs."""
