"""The lab: what launches, watches, keeps and compares experiments."""
