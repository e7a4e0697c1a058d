"""The search methods, a file each. A new one needs its file, and a line in `registry`."""
