"""From log-probs to texts, files and numbers; models and lattice searches come in as arguments."""
