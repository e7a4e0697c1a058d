"""A trained model for other runtimes: ONNX files that sherpa-onnx runs as they are.

names        what files are called; no torch, no onnx
contract     what sherpa-onnx asks of a model: names, shapes, metadata; no torch, no onnx
states       our streaming state <-> its state tensors
modules      a branch as one function of tensors, for whatever head reads it
graph        a module traced, cleaned, given its metadata, made int8
encoders     a branch as a graph; ctc, transducer: with a head
lint         whether a graph keeps the contract
probe        whether a graph gives what torch gives
folder       all files of an export, written whole or not at all
"""
