"""The published encoder: front end, stacks, layers, training aids, streaming state. What is this
project's own (branches, heads, distillation) is in the folder above.
"""
