"""Parts of latency_curve.py: the decoded cells, what was shown when, the table, the drawing."""
