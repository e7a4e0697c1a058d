"""Heads: what a branch makes of its encoder's frames. One file each, a contract, a registry."""
