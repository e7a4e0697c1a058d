"""tools/analysis/alignments.py: its losses and times against loops over one utterance at a time."""

import tomllib

import pytest
import torch
from bench_tiny import TINY

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from analysis.alignments import measure, tables

from dualasr_lib.core.config import from_dict
from dualasr_lib.data.batch import Batch, Example, collate
from dualasr_lib.model.distillation import DistillationConfig
from dualasr_lib.model.heads.contract import NbestTexts
from dualasr_lib.model.heads.ctc import CtcHead
from dualasr_lib.model.joint import JointModel, ModelConfig
from dualasr_lib.model.zipformer.streaming import ChunkSpec

CHUNK = ChunkSpec(frames=16, left=64)
HEADS = {"streaming": ["ctc", "transducer"], "full": ["ctc"]}
SMALL = {"sizes": {"dim": 8, "joiner_dim": 12}}


@pytest.fixture(scope="module")
def model() -> JointModel:
    torch.manual_seed(3)
    values = tomllib.loads(TINY)["model"]
    values["heads"] |= {**HEADS, "transducer": SMALL}
    model = JointModel(from_dict(ModelConfig, values), DistillationConfig(), 9, sos_eos=1).eval()
    head = model.head("transducer", "streaming")
    torch.nn.init.normal_(head.transducer.joiner.output.weight)  # type: ignore[union-attr]
    torch.nn.init.normal_(model.head("ctc", "streaming").projection.weight)  # type: ignore[union-attr]
    return model


def batch_of(model: JointModel, sizes: list[int]) -> Batch:
    """What CTC hears in each; the last one has one token more, so that CTC is wrong there. Its bias
    takes away what all frames have in common, so that it hears many tokens.
    """
    generator = torch.Generator().manual_seed(1)
    features = [
        5.0 * torch.randn(size // 20, 20, generator=generator).repeat_interleave(20, dim=0)
        for size in sizes  # sounds of 200 ms
    ]
    ctc = model.head("ctc", "streaming")
    assert isinstance(ctc, CtcHead)
    heard = [
        model.encode(x[None], torch.tensor([len(x)]), CHUNK, ("streaming",))["streaming"]
        for x in features
    ]
    mean = torch.cat([each.h[0] for each in heard]).mean(dim=0)
    ctc.projection.bias.copy_(-ctc.projection.weight @ mean)
    texts = [ctc.texts(each)[0] for each in heard]
    texts[-1] = (*texts[-1], 3)
    return collate(
        [
            Example(id=f"u{i}", text="", duration=1.0, features=x, tokens=text)
            for i, (x, text) in enumerate(zip(features, texts))
        ]
    )


def test_losses_and_times(model: JointModel) -> None:
    with torch.no_grad():
        batch = batch_of(model, [200, 160, 100])
        found = measure(model, [batch], CHUNK, "streaming", [2, 50])
        encoded = model.encode(batch.features, batch.feature_lens, CHUNK, ("streaming",))
        states = encoded["streaming"]
        texts = NbestTexts(batch.tokens, batch.token_lens, torch.arange(3))
        count = int(batch.token_lens.sum())
        for name, key in (("transducer", "real, all cells"), ("ctc", "ctc")):
            score = model.head(name, "streaming").score(states, texts)
            assert found.losses[key] == pytest.approx(-float(score.sum()) / count, rel=1e-4)
    assert found.losses["real, 50 texts"] == pytest.approx(found.losses["real, all cells"])
    assert found.losses["real, 2 texts"] > found.losses["real, all cells"]
    assert (found.utterances, found.total) == (2, 3)
    assert len(found.late) == int(batch.token_lens[:2].sum()) > 2
    assert 0 <= found.early_chunks <= 1
    text = tables({"streaming": found})
    assert "| 2 of 3 " in text and "| p50" in text


def test_who_has_no_transducer(model: JointModel) -> None:
    with pytest.raises(ValueError, match="needs a full branch with a head transducer"):
        measure(model, [], CHUNK, "full", [5])
    with pytest.raises(ValueError, match="must have utterances that CTC gets right"):
        measure(model, [], CHUNK, "streaming", [5])
