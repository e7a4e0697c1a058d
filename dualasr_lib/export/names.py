"""How the files of an export are called; imports nothing heavy."""

__all__ = ["DECODER", "HEADS", "PARTS", "TOKENS", "graph_name"]

HEADS = ("ctc", "transducer")
"""Heads that can be exported."""
DECODER = "decoder"
PARTS = ("encoder", DECODER, "joiner")
"""Graphs of a transducer."""
TOKENS = "tokens.txt"


def graph_name(branch: str, head: str, part: str = "") -> str:
    """Of a graph, without its suffix; `part` is one of PARTS with a transducer."""
    return "-".join(filter(None, (branch, head, part)))
