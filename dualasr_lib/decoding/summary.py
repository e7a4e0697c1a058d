"""The numbers of a decoded split, as `summary-<split>.json` holds them.

Every value is computed from the hypotheses and the clocks; what cannot be computed (no reference,
no word times) is null. `unit` says what errors are counted in, and with it the names of the fields
(`cer`, `num_ref_chars`; `wer`, `num_ref_words`); `also` has those of further units. Beside the
caller's own, `params` states how the figures were made.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dualasr_lib.decoding.contract import StreamingModel
from dualasr_lib.decoding.hypothesis import Hypothesis
from dualasr_lib.decoding.offline import Decoded
from dualasr_lib.decoding.streaming import StreamingRun
from dualasr_lib.metrics.bootstrap import BootstrapConfig, cer_interval
from dualasr_lib.metrics.error_rate import ErrorCounts, count_errors
from dualasr_lib.metrics.latency import (
    algorithmic_latency_ms,
    emission_delays,
    first_token_latency,
    percentiles_ms,
    revised_characters,
)
from dualasr_lib.metrics.units import CHARACTER, UNITS, Unit

__all__ = [
    "RunInfo",
    "Scoring",
    "describe",
    "latency_summary",
    "main_unit",
    "offline_summary",
    "streaming_summary",
]


class Scoring(NamedTuple):
    """How the texts of a split are compared with its references; its data folder says so."""

    units: tuple[Unit, ...] = (CHARACTER,)
    """The first one is the main one."""
    normaliser: str = "none"
    """What the references were normalised by."""
    pooled: bool = False
    """Whether the split goes into the pooled error rate."""
    data: str = ""
    """What tells its data folder from another one."""


class RunInfo(NamedTuple):
    """What was decoded, and how."""

    split: str
    branch: str
    method: str
    params: Mapping[str, Any]
    """Options of the run: plain values for JSON."""
    variant: Sequence[str] = ()
    """What of them is not default, in words that a name can have."""
    scoring: Scoring = Scoring()


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
    `second_pass_left_out` counts the sentences in which each of its parts was left out for time.
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
    unit = info.scoring.units[0]
    counts = (count_errors(h.ref, h.first_pass_text, unit) for h in run.hypotheses)
    first = sum(counts, ErrorCounts())
    left_out = Counter(part for hypothesis in run.hypotheses for part in hypothesis.left_out)
    return {
        **summary,
        f"first_pass_{unit.rate}": first.rate,
        "second_pass_left_out": dict(left_out),
        "latency": latency,
    }


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
        final += count_errors(hypothesis.first_pass_text, "").num_ref
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
    bootstrap = BootstrapConfig()
    main, *others = (_errors(hypotheses, unit, bootstrap) for unit in info.scoring.units)
    return {
        "split": info.split,
        "branch": info.branch,
        "method": info.method,
        "variant": "-".join(info.variant),
        "pooled": info.scoring.pooled,
        "data": info.scoring.data,
        "num_utterances": len(hypotheses),
        "normaliser": info.scoring.normaliser,
        **main,
        **({"also": others} if others else {}),
        **timing,
        "params": {
            **info.params,
            **params,
            "bootstrap": {"draws": bootstrap.num_draws, "seed": bootstrap.seed},
        },
    }


def _errors(
    hypotheses: Sequence[Hypothesis], unit: Unit, bootstrap: BootstrapConfig
) -> dict[str, Any]:
    """What was counted in units of `unit`."""
    counts = [count_errors(hypothesis.ref, hypothesis.text, unit) for hypothesis in hypotheses]
    errors = sum(counts, ErrorCounts())
    interval = cer_interval(
        [count.errors for count in counts], [count.num_ref for count in counts], bootstrap
    )
    return {
        "unit": unit.name,
        "normalisation": unit.normalisation,
        f"num_ref_{unit.plural}": errors.num_ref,
        "ins": errors.insertions,
        "del": errors.deletions,
        "sub": errors.substitutions,
        unit.rate: interval.value,
        f"{unit.rate}_ci95": None if interval.value is None else [interval.low, interval.high],
    }


def main_unit(summary: Mapping[str, Any]) -> Unit:
    """The unit that a summary's errors are counted in.

    Raises:
        ValueError: an older version wrote the summary, without it.
    """
    if summary.get("unit") not in UNITS:
        raise ValueError(
            f"a summary must say its 'unit', one of {', '.join(UNITS)}, but says"
            f" {summary.get('unit')!r}: it is of an older version, decode again"
        )
    return UNITS[summary["unit"]]


def describe(summary: Mapping[str, Any]) -> str:
    """Error rates, the main one with its interval, and RTF in a few words, for the end of a run."""
    unit = main_unit(summary)
    if summary[unit.rate] is None:
        return "no reference"
    low, high = (f"{100 * value:.2f}" for value in summary[f"{unit.rate}_ci95"])
    rtf = "-" if summary["rtf"] is None else f"{summary['rtf']:.4f}"
    also = "".join(
        f", {other.label} {100 * values[other.rate]:.2f} %"
        for values in summary.get("also", ())
        for other in (main_unit(values),)
        if values[other.rate] is not None
    )
    return f"{unit.label} {100 * summary[unit.rate]:.2f} % ({low}-{high}){also}, RTF {rtf}"
