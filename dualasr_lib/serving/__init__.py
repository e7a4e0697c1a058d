"""A model behind a socket: live audio in, grey words and then final ones out."""
