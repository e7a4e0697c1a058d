"""A matrix of experiments: what is trained, how it is run, and what its results say."""
