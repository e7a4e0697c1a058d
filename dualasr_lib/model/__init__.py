"""The joint model: streaming encoder, full-context encoder on top, and the decoders and losses of
both branches.
"""
