"""A client's request -> what is asked of the model, or a refusal."""
