"""The stateless transducer: prediction network, joiner, pruned loss, and what distillation and
rescoring read of it.
"""
