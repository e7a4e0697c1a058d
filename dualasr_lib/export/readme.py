"""What the folder of an export says of itself, for people."""

from collections.abc import Mapping
from typing import Any

from dualasr_lib.export.names import DECODER, PARTS, graph_name

__all__ = ["readme"]

_STREAM = """
```python
import sherpa_onnx
recogniser = sherpa_onnx.OnlineRecognizer.{call}
stream = recogniser.create_stream()
stream.accept_waveform(16000, samples)  # float32 in [-1, 1]
stream.accept_waveform(16000, [0.0] * {zeros})  # at the end only
while recogniser.is_ready(stream):
    recogniser.decode_stream(stream)
text = "".join(recogniser.tokens(stream))
```

    sherpa-onnx --tokens=tokens.txt --left-padding=0 --right-padding={tail} {options} FILE.wav
"""

_WHOLE = """
```python
import sherpa_onnx
recogniser = sherpa_onnx.OfflineRecognizer.{call}
stream = recogniser.create_stream()
stream.accept_waveform(16000, samples)
recogniser.decode_stream(stream)
text = "".join(stream.result.tokens)
```

    sherpa-onnx-offline --tokens=tokens.txt {options} FILE.wav
"""

_ON_STREAMS = """
The first result needs {first_result_ms} ms of audio; from then on {shift_ms} ms bring {frames}
frames of 40 ms.

- **At the end feed {tail_ms} ms of zeros**, or the last words stay inside: the client decodes whole
  chunks only, needs {first_result_ms} ms to see the end of what was said, and a token may be said
  up to a chunk later than it is heard.
- `get_result` takes a leading `々`, `〆`, `〇` or punctuation mark away; `tokens` does not.
- The client ends the whole process on misuse: a stream decoded before it is ready, another sample
  rate within a stream, hot words with a CTC model. Check before you call.
"""


def readme(facts: Mapping[str, Any]) -> str:
    """Of what `export.json` says."""
    lines = [
        "# A dualasr model for sherpa-onnx",
        "",
        f"Weights: {facts['source']} ({facts['weights']}); {facts['vocab_size']} tokens; "
        f"{facts['sample_rate']} Hz; chunks of {facts['chunk_ms']} ms.",
        "Made for sherpa-onnx 2.0.1, which reads these files as they are: `pip install",
        "sherpa-onnx` for Python, `pip install sherpa-onnx-bin` for the programs. FILE.wav: one",
        "channel of 16 bits.",
        "",
        "| file | bytes | differs from torch |",
        "| --- | --- | --- |",
        *(
            f"| {name} | {entry['bytes']:,} | {facts['differs'].get(name, '')} |"
            for name, entry in facts["files"].items()
        ),
        "",
        "The last column is the largest difference of a score or state on noise; of int8, the root",
        "mean square as a share of what scores vary by.",
    ]
    text = "\n".join(lines) + "\n"
    for branch, title in (("streaming", "Streaming"), ("full", "Whole utterances")):
        heads = [head for head, write in _CALLS.items() if _there(facts, branch, head)]
        if heads:
            text += f"\n## {title}\n"
        if heads and branch == "streaming":
            shift = int(facts[branch]["decode_chunk_len"])
            text += _ON_STREAMS.format(**facts[branch], shift_ms=10 * shift, frames=shift // 4)
        for head in heads:
            text += f"\n### With the {head} head\n" + _CALLS[head](facts, branch)
    if any(name.endswith(".int8.onnx") for name in facts["files"]):
        text += (
            f"\nThe int8 files take the same calls; a {DECODER} has none, take the float one.\n"
            "Their rounding depends on what else is in the batch: one stream at a time where\n"
            "results must repeat.\n"
        )
    return text


def _there(facts: Mapping[str, Any], branch: str, head: str) -> bool:
    start = graph_name(branch, head)
    return any(name.startswith(start) for name in facts["files"])


def _ctc(facts: Mapping[str, Any], branch: str) -> str:
    file = f"{graph_name(branch, 'ctc')}.onnx"
    online = branch == "streaming"
    call = f'from_zipformer{2 * online or ""}_ctc(tokens="tokens.txt", model="{file}")'
    option = f"--zipformer{'2' if online else ''}-ctc-model={file}"
    return _filled(facts, branch, call, option)


def _transducer(facts: Mapping[str, Any], branch: str) -> str:
    files = {part: f"{graph_name(branch, 'transducer', part)}.onnx" for part in PARTS}
    words = ",\n    ".join(f'{part}="{file}"' for part, file in files.items())
    call = f'from_transducer(tokens="tokens.txt",\n    {words})'
    options = " ".join(f"--{part}={file}" for part, file in files.items())
    return _filled(facts, branch, call, options) + (
        "\nBy default the best outcome of each frame; "
        '`decoding_method="modified_beam_search"` keeps four hypotheses.\n'
    )


def _filled(facts: Mapping[str, Any], branch: str, call: str, options: str) -> str:
    if branch != "streaming":
        return _WHOLE.format(call=call, options=options)
    tail = facts[branch]["tail_ms"]
    return _STREAM.format(call=call, options=options, zeros=16 * tail, tail=tail / 1000)


_CALLS = {"ctc": _ctc, "transducer": _transducer}
