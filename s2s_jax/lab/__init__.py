"""The lab: launches, tracks, stores and compares experiments."""
