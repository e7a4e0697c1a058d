"""Text, tokens, batches: everything between the corpus on disk and the model's input."""
