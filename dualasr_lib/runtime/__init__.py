"""Recognition without torch: the ONNX set of `dualasr-export --format runtime`, by onnxruntime.

layout       what a set's files are called, and whether a folder is one; nothing heavy
model        the streaming branch as a `decoding.contract.StreamingModel`, of numpy's arrays
transducer   greedy search of a transducer
rescoring    the second pass that chooses by CTC and attention
opening      a set checked and opened: how streams are heard (`decoding.live.Rules`)

Everything between audio and events is `decoding`'s, as with torch.
"""
