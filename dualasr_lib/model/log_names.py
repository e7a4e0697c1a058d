"""What the names say that training of a joint model logs, for whoever reads its curves."""

__all__ = ["DESCRIPTIONS"]

_NATS = "nats per token, the end of each text counted as one"

DESCRIPTIONS = {
    "train/distillation_*": "Distillation loss between the branches (encoder outputs, or states of "
    "a head), before its weight; 0 until its warm-up ends.",
    "train/loss_share/*": "Share of a part in the whole loss, weights included: a branch, or a "
    "distillation. Shares add up to 1.",
    "train/chunk_frames": "Chunk lengths drawn for the streaming branch, mean, in encoder frames "
    "of 20 ms.",
    "train/chunk_share/*": "Share of batches that were trained with chunks of so many frames "
    "of 20 ms.",
    "train/impossible_utterances": "Utterances per batch without any alignment: too few frames for "
    "their tokens. They count 0 in the loss.",
    "train/*_streaming": f"Loss of a head of the streaming branch, {_NATS}.",
    "train/*_full": f"Loss of a head of the full-context branch, {_NATS}.",
    "valid/loss": "Loss on the validation set: that of the branches with their weights, without "
    f"distillation, {_NATS}. Chunks as in decoding.",
    "valid/loss_streaming": "The streaming branch's part of valid/loss.",
    "valid/loss_full": "The full-context branch's part of valid/loss.",
    "valid/loss_*": f"Loss of a head of a branch on the validation set, before weights, {_NATS}.",
    "valid/?er_*": "Error rate of a branch on the validation set, greedy search with its first "
    "head and the weights of this step, %.",
    "valid/similarity_gap_*": "How unlike the branches are in the validation batch with the most "
    "utterances: squared distance of their similarity matrices per entry, 0 = the same. Comparable "
    "between runs on the same data only.",
}
"""Name or pattern -> what it says; the first that fits counts."""
