"""What is measured: training of the streaming encoder alone on made-up features.

Time does not depend on what is heard, so features are noise about as loud as speech; all utterances
of a batch are equally long, so that nothing is padding but the last chunk. The joint model is in
joint.py.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from bench.breakdown import parts_of
from bench.timing import Work
from dualasr_lib.core.config import from_dict, override, read_toml
from dualasr_lib.core.rates import FRAME_SHIFT_MS
from dualasr_lib.model.encoder import StreamingEncoder, encoder_lens
from dualasr_lib.model.zipformer.scheduled import set_step
from dualasr_lib.model.zipformer.stacks import StackConfig, Zipformer
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.model.zipformer.subsampling import SubsamplingConfig

__all__ = [
    "SMALL",
    "YARDSTICK",
    "EncoderConfig",
    "Setting",
    "build_encoder",
    "clear_gradients",
    "encoder_config",
    "encoder_work",
    "features_of",
    "generator",
    "is_yardstick",
    "model_values",
    "ready",
    "three_steps",
    "train_encoder",
    "with_batch",
]

M = TypeVar("M", bound=nn.Module)

YARDSTICK = 3.9e9
"""Floating point operations per second of audio, forward and backward, of the published small
streaming encoder (chunk 32, left 128, batch 10 x 10 s): 66 GF addmm, 191 mm, 46 bmm, 86 convolution
per 100 s."""
SMALL = 22.33e6
"""Parameters of that encoder, front end included, CTC head not."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One workload; plain values, so that another process can be given it."""

    config: Path
    """TOML file with the `[model]` section."""
    overrides: tuple[str, ...] = ()
    """`key=value` on top of it."""
    utterances: int = 10
    """Utterances of a batch."""
    seconds: float = 10.0
    """Audio seconds of each."""
    chunk: int = 32
    """Chunk in 50 Hz frames."""
    left: int = 128
    """Left context in 50 Hz frames."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 means autocast."""
    device: str = "cpu"
    """cpu or cuda."""
    threads: int = 1
    """Threads of torch."""
    step: int = 50_000
    """Training step at which all schedules stand."""
    vocab_size: int = 3266
    """Tokens of the joint model: characters of CSJ."""

    def __post_init__(self) -> None:
        if self.utterances < 1 or self.frames < 1 or self.threads < 1:
            raise ValueError(
                "utterances, seconds and threads must be positive, but are "
                f"{self.utterances}, {self.seconds} and {self.threads}"
            )
        if self.device.split(":")[0] not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu or cuda, but is {self.device!r}")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"device {self.device} needs a GPU that torch can use; there is none")
        ChunkSpec(frames=self.chunk, left=self.left)  # its own checks

    @property
    def spec(self) -> ChunkSpec:
        """Chunk and left context."""
        return ChunkSpec(frames=self.chunk, left=self.left)

    @property
    def frames(self) -> int:
        """Feature frames of an utterance."""
        return round(1000 * self.seconds / FRAME_SHIFT_MS)

    @property
    def audio_seconds(self) -> float:
        """Audio of a batch."""
        return self.utterances * self.seconds

    def autocast(self) -> torch.autocast:
        """The context that a forward pass runs in."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.dtype == "bfloat16")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The part of section `[model]` that the streaming encoder is built from."""

    num_features: int = 80
    """Mel bins."""
    subsampling: SubsamplingConfig = field(default_factory=SubsamplingConfig)
    """Front end."""
    streaming: tuple[StackConfig, ...] = ()
    """Chunk-masked stacks."""


def with_batch(setting: Setting, utterances: int, seconds: float) -> Setting:
    """The same with another batch."""
    return replace(setting, utterances=utterances, seconds=seconds)


def model_values(setting: Setting) -> dict[str, Any]:
    """The configuration as plain values.

    Raises:
        ValueError: unreadable, or without streaming stacks.
    """
    values = override(read_toml(setting.config), setting.overrides)
    if not values.get("model", {}).get("streaming"):
        raise ValueError(f"{setting.config} must have [[model.streaming]] stacks, but has none")
    return values


def encoder_config(values: dict[str, Any]) -> EncoderConfig:
    """The encoder's part of `model_values`."""
    model = values["model"]
    own = {key: model[key] for key in EncoderConfig.__dataclass_fields__ if key in model}
    return from_dict(EncoderConfig, own, "model.")


def build_encoder(setting: Setting) -> StreamingEncoder:
    """The streaming encoder of a configuration with fresh weights, ready to train."""
    config = encoder_config(model_values(setting))
    torch.manual_seed(0)
    encoder = StreamingEncoder(config.subsampling, config.streaming, config.num_features)
    encoder.check(setting.spec)
    return ready(encoder, setting)


def is_yardstick(encoder: nn.Module) -> bool:
    """Whether `YARDSTICK` is about this encoder: it has the published size to 3 %."""
    return abs(sum(p.numel() for p in encoder.parameters()) / SMALL - 1.0) < 0.03


def encoder_work(encoder: StreamingEncoder, setting: Setting, name: str) -> Work:
    """Training of the encoder alone, from a random gradient of its output."""
    features, lens = features_of(setting)
    size = (setting.utterances, int(encoder_lens(lens)[0]), encoder.output_dim)
    gradient = torch.randn(size, generator=generator()).to(setting.device)

    def forward() -> Tensor:
        with setting.autocast():
            return encoder(features, lens, setting.spec).h

    return Work(
        name=name,
        seconds=setting.audio_seconds,
        forward=forward,
        backward=lambda h: h.backward(gradient.to(h.dtype)),
        clear=lambda: clear_gradients(encoder),
        parts=parts_of(encoder, Zipformer),
    )


def train_encoder(setting: Setting) -> None:
    """Three steps of the encoder alone, for `peak_memory`."""
    torch.set_num_threads(setting.threads)
    three_steps(encoder_work(build_encoder(setting), setting, "encoder"))


def three_steps(work: Work) -> None:
    """Enough for memory to settle."""
    for _ in range(3):
        work.clear()
        work.backward(work.forward())


def ready(model: M, setting: Setting) -> M:
    """The model in training mode, on its device, with its schedules set."""
    set_step(model, setting.step)
    return model.to(setting.device).train()


def features_of(setting: Setting) -> tuple[Tensor, Tensor]:
    """Features (N, T, 80) and lengths (N,)."""
    shape = (setting.utterances, setting.frames, encoder_config(model_values(setting)).num_features)
    features = 3.5 * torch.randn(shape, generator=generator()) - 6.0
    lens = torch.full((setting.utterances,), setting.frames)
    return features.to(setting.device), lens.to(setting.device)


def generator() -> torch.Generator:
    """Same numbers in every run."""
    return torch.Generator().manual_seed(0)


def clear_gradients(model: nn.Module) -> None:
    """Gradients are dropped, not zeroed."""
    for parameter in model.parameters():
        parameter.grad = None
