"""A client's request -> a question for the model, or a refusal."""
