"""dualasr: a streaming and a full-context Japanese recogniser in one jointly trained model.

Every mechanism lives in this package; choices for one corpus live in egs/. The layers are listed in
tests/test_layers.py, which enforces them. This file exports nothing: import the module you need.
"""
