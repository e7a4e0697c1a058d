"""What the folder of an export says of itself, for people."""

from collections.abc import Mapping
from typing import Any

__all__ = ["readme"]

_STREAMING = """
## Streaming

The first result needs {first_ms} ms of audio; from then on {shift_ms} ms bring {frames} frames of
40 ms.

```python
import sherpa_onnx
recogniser = sherpa_onnx.OnlineRecognizer.from_zipformer2_ctc(
    tokens="tokens.txt", model="streaming-ctc.onnx")
stream = recogniser.create_stream()
stream.accept_waveform(16000, samples)  # float32 in [-1, 1]
while recogniser.is_ready(stream):
    recogniser.decode_stream(stream)
text = "".join(recogniser.tokens(stream))
```

- At the end feed {first_ms} ms of zeros, or the last words stay inside.
- `get_result` takes a leading `々`, `〆`, `〇` or punctuation mark away; `tokens` does not.
- The client ends the whole process on misuse: a stream decoded before it is ready, another sample
  rate within a stream, hot words with a CTC model. Check before you call.
"""

_FULL = """
## Whole utterances

```python
import sherpa_onnx
recogniser = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
    tokens="tokens.txt", model="full-ctc.onnx")
stream = recogniser.create_stream()
stream.accept_waveform(16000, samples)
recogniser.decode_stream(stream)
text = "".join(stream.result.tokens)
```
"""


def readme(facts: Mapping[str, Any]) -> str:
    """Of what `export.json` says."""
    lines = [
        "# A dualasr model for sherpa-onnx",
        "",
        f"Weights: {facts['source']} ({facts['weights']}); {facts['vocab_size']} tokens; "
        f"{facts['sample_rate']} Hz; chunks of {facts['chunk_ms']} ms.",
        "Made for sherpa-onnx 2.0.1, which reads these files as they are.",
        "",
        "| file | bytes |",
        "| --- | --- |",
        *(f"| {name} | {entry['bytes']:,} |" for name, entry in facts["files"].items()),
    ]
    text = "\n".join(lines) + "\n"
    streaming = facts.get("streaming-ctc")
    if streaming is not None:
        shift = int(streaming["decode_chunk_len"])
        text += _STREAMING.format(
            first_ms=streaming["first_result_ms"],
            shift_ms=10 * shift,
            frames=shift // 4,
        )
    if "full-ctc.onnx" in facts["files"]:
        text += _FULL
    if any(name.endswith(".int8.onnx") for name in facts["files"]):
        text += (
            "\nThe int8 files take the same calls. Their rounding depends on what else is in the "
            "batch:\none stream at a time where results must repeat.\n"
        )
    return text
