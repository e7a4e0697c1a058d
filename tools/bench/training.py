"""The cases of bench_training.py: each runs one comparison and gives rows of the table."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from bench.breakdown import OTHER, PartTimes, break_down
from bench.joint import build_joint, joint_work, train_joint
from bench.memory import Peak, peak_memory
from bench.report import Row
from bench.timing import (
    Gemm,
    Rate,
    Rounds,
    Step,
    Work,
    median,
    run_rounds,
    single_product,
    timed_step,
    total,
)
from bench.transducer import (
    k2_work,
    make_task,
    our_work,
    train_k2,
    train_ours,
    weight_bytes,
    worthy_share,
)
from bench.workloads import (
    YARDSTICK,
    Setting,
    build_encoder,
    encoder_work,
    is_yardstick,
    train_encoder,
    with_batch,
)

__all__ = ["CASES", "EFFICIENCY", "Bench", "PartRow", "Result", "efficiencies", "part_rows"]

_ALONE = 'model.branches=["streaming"]'
_TRANSDUCER_TARGETS = {500: 8.0, 3266: 20.0}
"""Vocabulary -> ms per second of audio and branch."""
_K2 = "k2's way"
_TWO_HEADS = 'model.heads.{}=["ctc", "attention"]'
_THREE_HEADS = 'model.heads.{}=["ctc", "attention", "transducer"]'
EFFICIENCY = 0.66 if int(torch.__version__.split(".")[0]) >= 2 else 0.70
"""Target: torch 2 has slower logarithms and narrow products on this kind of CPU."""
_GPU_BATCH = (80, 15.0)  # utterances and seconds of each: 1200 s


class Bench(NamedTuple):
    """What all cases are given."""

    encoder: Setting
    """The streaming encoder alone."""
    joint: Setting
    """The joint model."""
    rounds: int
    """How often everything that is compared takes its turn."""
    breakdown: bool
    """Whether to look into the parts."""
    clock: str
    """`cpu` or `wall`: which time verdicts go by."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return torch.device(self.encoder.device)


class PartRow(NamedTuple):
    """Time of one part of a model, ms per second of audio."""

    part: str
    forward: float
    backward: float


class Result(NamedTuple):
    """Rows of the table, and the parts' times by case."""

    rows: list[Row]
    parts: dict[str, list[PartRow]]


def encoder_case(bench: Bench) -> Result:
    """The streaming encoder alone."""
    encoder = build_encoder(bench.encoder)
    work = encoder_work(encoder, bench.encoder, "encoder")
    gemm = Gemm(bench.device, torch.float32)
    found = run_rounds([work], bench.rounds, bench.device, gemm)
    case = f"encoder {bench.encoder.dtype}"
    rows = _time_rows(case, work, found, bench.clock)
    rows.append(_rate_row(case, "float32 GEMM, best square", found.square, bench.clock))
    rows.append(_rate_row(case, "float32 GEMM, 5000x192x512", found.narrow, bench.clock))
    if is_yardstick(encoder):
        in_question = bench.device.type == "cpu" and bench.encoder.dtype == "float32"
        for clock in ("wall", "cpu") if bench.clock == "cpu" else ("wall",):
            judged = in_question and clock == bench.clock
            value = median(efficiencies(_times(found, work, clock), _rates(found.square, clock)))
            target = EFFICIENCY if judged else None
            rows.append(Row(case, f"arithmetic efficiency ({clock})", value, at_least=target))
    return Result(rows, _parts(case, work, bench))


def joint_case(bench: Bench) -> Result:
    """Both branches against the streaming branch alone."""
    model, loss = build_joint(bench.joint)
    both = joint_work(model, loss, bench.joint, "both branches")
    setting = replace(bench.joint, overrides=(*bench.joint.overrides, _ALONE))
    alone = joint_work(*build_joint(setting), setting, "streaming branch alone")
    case = f"joint {bench.joint.dtype}"
    rows = _ratio_rows(case, both, alone, bench, 1.6)
    return Result(rows, _parts(case, both, bench))


def long_case(bench: Bench) -> Result:
    """One utterance five times as long as five others."""
    encoder = build_encoder(bench.encoder)
    length = bench.encoder.seconds
    short, long = (
        encoder_work(encoder, with_batch(bench.encoder, count, seconds), f"{count} x {seconds:g} s")
        for count, seconds in ((5, length), (1, 5 * length))
    )
    # "Costs no more" is meant: the rest is what medians of a quiet machine move by.
    rows = _ratio_rows("long", long, short, bench, 1.03)  # 3 % for what clocks do
    if bench.device.type == "cpu":
        rows += _growth_rows(bench.encoder)
    return Result(rows, {})


def memory_case(bench: Bench) -> Result:
    """Peak memory of a batch, encoder alone and joint model."""
    target = 3.0 if bench.encoder.audio_seconds == 100.0 else None
    rows = _memory_rows("encoder", peak_memory(train_encoder, bench.encoder), target)
    if bench.joint.config.exists():
        rows += _memory_rows("joint model", peak_memory(train_joint, bench.joint), None)
    return Result(rows, {})


def bf16_case(bench: Bench) -> Result:
    """bfloat16 autocast against float32."""
    encoder = build_encoder(bench.encoder)
    half, single = (
        encoder_work(encoder, replace(bench.encoder, dtype=dtype), dtype)
        for dtype in ("bfloat16", "float32")
    )
    rates = [
        getattr(single_product(bench.device, dtype), bench.clock)
        for dtype in (torch.bfloat16, torch.float32)
    ]
    # Without bfloat16 units (AVX512-BF16, AMX) it is emulated: there is nothing to be won.
    rows = _ratio_rows("bf16", half, single, bench, 0.70 if rates[0] > rates[1] else None)
    names = ("bfloat16", "float32")
    rows += [Row("bf16", f"{n} GEMM, one of 512", r / 1e9, "GF/s") for n, r in zip(names, rates)]
    if rates[0] <= rates[1]:
        print("bf16 is not judged: this machine has no fast bfloat16 matrix products")
    return Result(rows, {})


def transducer_case(bench: Bench) -> Result:
    """Our transducer loss beside k2's way, at two vocabularies, with fresh and taught heads."""
    rows: list[Row] = []
    for vocab_size in sorted({500, bench.encoder.vocab_size}):
        setting = replace(bench.encoder, vocab_size=vocab_size)
        for taught in (False, True):
            rows += _transducer_times(setting, taught, bench)
    if bench.device.type == "cpu":
        rows += _transducer_memory(bench.encoder)
    return Result(rows, {})


def heads_case(bench: Bench) -> Result:
    """The joint model with a transducer as a third head on both branches against two heads."""
    three, two = (_with_heads(bench.joint, heads) for heads in (_THREE_HEADS, _TWO_HEADS))
    case = f"heads V={bench.joint.vocab_size} {bench.joint.config.name}"
    return Result(_ratio_rows(case, three, two, bench, 1.35), {})


def _with_heads(setting: Setting, heads: str) -> Work:
    """A step of the joint model with other heads on both branches, not trained yet."""
    changes = (heads.format(branch) for branch in ("streaming", "full"))
    setting = replace(setting, overrides=(*setting.overrides, *changes))
    count = heads.count('", ') + 1
    return joint_work(*build_joint(setting), setting, f"{count} heads per branch")


def gpu_case(bench: Bench) -> Result:
    """A batch as a GPU gets it."""
    setting = replace(with_batch(bench.encoder, *_GPU_BATCH), dtype="bfloat16")
    encoder = build_encoder(setting)
    work = encoder_work(encoder, setting, "encoder")
    torch.cuda.reset_peak_memory_stats(bench.device)
    timed_step(work, bench.device, seed=0)
    held = torch.cuda.max_memory_allocated(bench.device)
    gemm = Gemm(bench.device, torch.bfloat16)
    found = run_rounds([work], bench.rounds, bench.device, gemm)
    times = _times(found, work, "wall")
    rows = _time_rows("gpu", work, found, "wall")
    rows.append(
        Row(
            "gpu",
            "encoder, forward + backward: audio hours per second",
            1.0 / (3.6 * median(times)),
            "h/s",
        )
    )
    rows.append(_rate_row("gpu", "bfloat16 GEMM, best square", found.square, "wall"))
    if is_yardstick(encoder):
        share = median(efficiencies(times, _rates(found.square, "wall")))
        rows.append(Row("gpu", "arithmetic efficiency (wall)", share))
    rows.append(Row("gpu", f"peak memory of a {work.seconds:.0f} s batch", held / 1e9, "GB"))
    return Result(rows, {})


CASES: Mapping[str, Callable[[Bench], Result]] = {
    "encoder": encoder_case,
    "joint": joint_case,
    "long": long_case,
    "memory": memory_case,
    "bf16": bf16_case,
    "transducer": transducer_case,
    "heads": heads_case,
    "gpu": gpu_case,
}
"""In the order in which `--case all` runs them."""


def efficiencies(times: Sequence[float], rates: Sequence[float]) -> list[float]:
    """The yardstick's work over time (ms per second of audio) and GEMM rate, round by round."""
    return [YARDSTICK / (time / 1000.0) / rate for time, rate in zip(times, rates)]


def part_rows(found: Sequence[PartTimes], seconds: float) -> list[PartRow]:
    """Parts in order of use, what lies between them last; medians over rounds."""
    return [
        PartRow(
            part,
            *(
                1000.0 * median([times.get(part, {}).get(phase, 0.0) for times in found]) / seconds
                for phase in ("forward", "backward")
            ),
        )
        for part in sorted(found[0], key=lambda part: part == OTHER)
    ]


def _parts(case: str, work: Work, bench: Bench) -> dict[str, list[PartRow]]:
    if not bench.breakdown:
        return {}
    rounds = max(1, bench.rounds // 2)
    found = break_down(work, bench.device, rounds)
    return {case: part_rows(found, work.seconds)}


def _per_second(steps: Sequence[Step], seconds: float, clock: str, part: str) -> list[float]:
    """Milliseconds per second of audio, step by step."""
    times = [total(step) if part == "total" else getattr(step, part) for step in steps]
    return [1000.0 * getattr(time, clock) / seconds for time in times]


def _times(found: Rounds, work: Work, clock: str) -> list[float]:
    return _per_second(found.steps[work.name], work.seconds, clock, "total")


def _rates(rates: Sequence[Rate], clock: str) -> list[float]:
    return [getattr(rate, clock) for rate in rates]


def _rate_row(case: str, what: str, rates: Sequence[Rate], clock: str) -> Row:
    return Row(case, f"{what} ({clock})", median(_rates(rates, clock)) / 1e9, "GF/s")


def _time_rows(case: str, work: Work, found: Rounds, clock: str) -> list[Row]:
    steps = found.steps[work.name]
    rows = []
    for part in ("forward", "backward"):
        value = median(_per_second(steps, work.seconds, clock, part))
        rows.append(Row(case, f"{part}, median ({clock})", value, "ms/s"))
    for kind in ("wall", "cpu"):
        times = _times(found, work, kind)
        rows.append(Row(case, f"forward + backward, median ({kind})", median(times), "ms/s"))
        rows.append(Row(case, f"forward + backward, min ({kind})", min(times), "ms/s"))
    return rows


def _ratio_rows(case: str, a: Work, b: Work, bench: Bench, target: float | None) -> list[Row]:
    """Both times, and the median over rounds of their ratio, which should be `target` at most."""
    found = run_rounds([a, b], bench.rounds, bench.device)
    times = {work.name: _times(found, work, bench.clock) for work in (a, b)}
    rows = [
        Row(case, f"{name}, median ({bench.clock})", median(values), "ms/s")
        for name, values in times.items()
    ]
    ratio = median([x / y for x, y in zip(times[a.name], times[b.name])])
    return [*rows, Row(case, f"{a.name} / {b.name}", ratio, at_most=target)]


def _growth_rows(setting: Setting) -> list[Row]:
    """Memory of one utterance that is doubled twice."""
    lengths = [setting.seconds * factor for factor in (2.5, 5.0, 10.0)]
    peaks = [peak_memory(train_encoder, with_batch(setting, 1, length)) for length in lengths]
    rows = [
        Row("long", f"1 x {length:g} s: peak RSS - base", peak.net / 1e9, "GB")
        for length, peak in zip(lengths, peaks)
    ]
    growth = (peaks[2].net - peaks[1].net) / max(1, peaks[1].net - peaks[0].net)
    what = "memory of the second doubling / the first (linear: 2, quadratic: 4)"
    return [*rows, Row("long", what, growth, at_most=2.3)]


def _memory_rows(name: str, peak: Peak, target: float | None) -> list[Row]:
    case = "memory"
    return [
        Row(
            case,
            f"{name}, no optimiser: peak RSS, base included",
            peak.peak / 1e9,
            "GB",
            at_most=target,
        ),
        Row(case, f"{name}: base RSS (python, torch)", peak.base / 1e9, "GB"),
        Row(case, f"{name}: peak RSS - base", peak.net / 1e9, "GB"),
    ]


def _transducer_times(setting: Setting, taught: bool, bench: Bench) -> list[Row]:
    dim = build_encoder(setting).output_dim
    tasks = [make_task(setting, dim, taught) for _ in range(2)]
    works = [our_work(tasks[:1], "ours"), our_work(tasks, "ours, both branches at once")]
    if _has_k2():
        works.append(k2_work(tasks[0], _K2))
    found = run_rounds(works, bench.rounds, bench.device)
    heads = "taught" if taught else "fresh"
    case = f"transducer V={setting.vocab_size} {heads}"
    times = {work.name: _times(found, work, bench.clock) for work in works}
    judged = taught and bench.device.type == "cpu" and setting.threads == 1
    target = _TRANSDUCER_TARGETS.get(setting.vocab_size) if judged else None
    rows = [Row(case, "share of cells with a gradient", worthy_share(tasks[0]))]
    rows += [
        Row(
            case,
            f"{name}, per branch, median ({bench.clock})",
            median(values),
            "ms/s",
            at_most=None if name == _K2 else target,
        )
        for name, values in times.items()
    ]
    if _K2 in times:
        ratio = median([a / b for a, b in zip(times["ours"], times[_K2])])
        rows.append(Row(case, "ours / k2's way", ratio))
    return rows


def _transducer_memory(setting: Setting) -> list[Row]:
    """What a transducer adds to the peak of the encoder alone."""
    case = f"transducer V={setting.vocab_size} memory"
    alone = peak_memory(train_encoder, setting)
    own = 2 * weight_bytes(setting, build_encoder(setting).output_dim)
    rows = [
        Row(case, "encoder alone: peak RSS", alone.peak / 1e6, "MB"),
        Row(case, "weights of the transducer and their gradients", own / 1e6, "MB"),
    ]
    for name, train in {"ours": train_ours, **({_K2: train_k2} if _has_k2() else {})}.items():
        more = peak_memory(train, setting).peak - alone.peak
        target = 60.0 if name == "ours" and setting.vocab_size in _TRANSDUCER_TARGETS else None
        rows.append(Row(case, f"{name}: peak over the encoder's", more / 1e6, "MB"))
        what = f"{name}: the same without weights and their gradients"
        rows.append(Row(case, what, (more - own) / 1e6, "MB", at_most=target))
    return rows


def _has_k2() -> bool:
    return importlib.util.find_spec("k2") is not None
