"""The numbers of a decoded split, as `summary-<split>.json` holds them.

Every value is computed from the hypotheses and the clocks; what cannot be computed (no reference
character, no word times) is null. Beside the caller's own, `params` states how the figures were
made.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dualasr_lib.decoding.contract import StreamingModel
from dualasr_lib.decoding.hypothesis import Hypothesis
from dualasr_lib.decoding.offline import Decoded
from dualasr_lib.decoding.streaming import StreamingRun
from dualasr_lib.metrics.bootstrap import BootstrapConfig, cer_interval
from dualasr_lib.metrics.cer import NORMALISATION, ErrorCounts, count_errors
from dualasr_lib.metrics.latency import (
    algorithmic_latency_ms,
    emission_delays,
    first_token_latency,
    percentiles_ms,
    revised_characters,
)

__all__ = ["RunInfo", "describe", "latency_summary", "offline_summary", "streaming_summary"]


class RunInfo(NamedTuple):
    """What was decoded, and how."""

    split: str
    branch: str
    method: str
    params: Mapping[str, Any]
    """Options of the run: plain values for JSON."""
    variant: Sequence[str] = ()
    """What of them is not default, in words that a name can have."""


def offline_summary(info: RunInfo, decoded: Decoded) -> dict[str, Any]:
    """Summary of `decode_batches`; RTF counts model and search on stored features."""
    timing = {
        "rtf": decoded.rtf,
        "audio_seconds": decoded.audio_seconds,
        "fallbacks": decoded.fallbacks,
    }
    params = {"num_threads": decoded.num_threads, "rtf_counts": "model and search, wall time"}
    return _summary(info, decoded.hypotheses, timing, params)


def streaming_summary(info: RunInfo, run: StreamingRun, model: StreamingModel) -> dict[str, Any]:
    """Summary of `decode_streams`; RTF counts features, model and search of all streams.

    Fall-backs are those of the second pass: the online search has none (it would raise).
    """
    fallbacks = sum(hypothesis.fallbacks for hypothesis in run.hypotheses)
    timing = {"rtf": run.rtf, "audio_seconds": run.audio_seconds, "fallbacks": fallbacks}
    params = {
        "num_threads": run.num_threads,
        "rtf_counts": "features, model and search, wall time",
        "latency_clock": run.clock,
    }
    summary = _summary(info, run.hypotheses, timing, params)
    latency = {**latency_summary(run, model), **_ends(run.hypotheses)}
    if "second_pass_ms" not in latency:
        return {**summary, "latency": latency}
    first = sum((count_errors(h.ref, h.first_pass_text) for h in run.hypotheses), ErrorCounts())
    return {**summary, "first_pass_cer": first.rate, "latency": latency}


def _ends(hypotheses: Sequence[Hypothesis]) -> dict[str, Any]:
    """What the ends of the streams took, as far as it was measured: `second_pass_ms` is the
    duration of the second pass, `final_ms` what a user waits for the final text (`realtime`).
    """
    seconds = {
        "second_pass_ms": [hypothesis.finalise_seconds for hypothesis in hypotheses],
        "final_ms": [hypothesis.final_seconds for hypothesis in hypotheses],
    }
    known = {name: [v for v in values if v is not None] for name, values in seconds.items()}
    return {name: percentiles_ms(values) for name, values in known.items() if values}


def latency_summary(run: StreamingRun, model: StreamingModel) -> dict[str, Any]:
    """Latencies in milliseconds, as `metrics.latency` defines them, of the texts of the first
    pass; `first_token_ms` is the median.
    """
    delays: list[float] = []
    first: list[float] = []
    revised = final = 0
    for hypothesis in run.hypotheses:
        history = [emission.shown for emission in hypothesis.emissions]
        delays += emission_delays(history, hypothesis.words)
        onset = first_token_latency(history, hypothesis.words)
        first += [] if onset is None else [onset]
        revised += revised_characters(history)
        final += count_errors(hypothesis.first_pass_text, "").num_ref_chars
    steps = [seconds for hypothesis in run.hypotheses for seconds in hypothesis.step_seconds]
    return {
        "algorithmic_ms": algorithmic_latency_ms(
            model.chunk_samples, model.lookahead_samples, model.sample_rate
        ),
        "first_token_ms": percentiles_ms(first, [50])["p50"],
        "emission_ms": percentiles_ms(delays),
        "partial_revision_rate": revised / final if final else None,
        "chunk_compute_ms": percentiles_ms(steps, [50, 99]),
        "num_streams": run.config.num_streams,
    }


def _summary(
    info: RunInfo,
    hypotheses: Sequence[Hypothesis],
    timing: Mapping[str, Any],
    params: Mapping[str, Any],
) -> dict[str, Any]:
    counts = [count_errors(hypothesis.ref, hypothesis.text) for hypothesis in hypotheses]
    errors = sum(counts, ErrorCounts())
    bootstrap = BootstrapConfig()
    interval = cer_interval(
        [count.errors for count in counts], [count.num_ref_chars for count in counts], bootstrap
    )
    return {
        "split": info.split,
        "branch": info.branch,
        "method": info.method,
        "variant": "-".join(info.variant),
        "num_utterances": len(hypotheses),
        "num_ref_chars": errors.num_ref_chars,
        "ins": errors.insertions,
        "del": errors.deletions,
        "sub": errors.substitutions,
        "cer": interval.value,
        "cer_ci95": None if interval.value is None else [interval.low, interval.high],
        **timing,
        "params": {
            **info.params,
            **params,
            "normalisation": NORMALISATION,
            "bootstrap": {"draws": bootstrap.num_draws, "seed": bootstrap.seed},
        },
    }


def describe(summary: Mapping[str, Any]) -> str:
    """CER with its interval and RTF in a few words, for the end of a run."""
    if summary["cer"] is None:
        return "no reference characters"
    low, high = (f"{100 * value:.2f}" for value in summary["cer_ci95"])
    rtf = "-" if summary["rtf"] is None else f"{summary['rtf']:.4f}"
    return f"CER {100 * summary['cer']:.2f} % ({low}-{high}), RTF {rtf}"
