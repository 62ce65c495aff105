"""Other people's ways of training the same model, each in an environment of its own."""
