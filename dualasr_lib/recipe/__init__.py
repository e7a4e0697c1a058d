"""What is the same for every corpus: from a tree on disk to features, tokens, n-grams, a report."""
