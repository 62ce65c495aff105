"""The scores of a trained model, and what is shown of it."""
