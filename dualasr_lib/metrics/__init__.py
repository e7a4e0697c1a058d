"""Measurements on texts and times: alignment, character error rate, bootstrap intervals, latency.
Knows no model.
"""
