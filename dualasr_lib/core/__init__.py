"""What every other room stands on: strict configuration, atomic files, memory, ranks, trees of
tensors, traces, and what all command lines share. Standard library, torch, numpy and tqdm only.
"""
