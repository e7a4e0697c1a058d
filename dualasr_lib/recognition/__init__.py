"""A trained model at work: recogniser, search methods, language models, tuning, and what the
decoding programs share.
"""
