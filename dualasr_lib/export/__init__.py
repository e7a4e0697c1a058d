"""A trained model for other runtimes: ONNX files that sherpa-onnx runs as they are.

contract     what sherpa-onnx asks of a model: names, shapes, metadata; no torch, no onnx
states       our streaming state <-> its state tensors
modules      a branch with its CTC head as one function of tensors
graph        a module traced, cleaned, given its metadata, made int8
folder       all files of an export, written whole or not at all
"""
