"""The whole path from samples to log-probabilities: running streams equal whole utterances."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("_kaldifeat")
pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from random_model import trained_model

from dualasr_lib.core.checkpoint import Checkpoint, file_name, save
from dualasr_lib.core.config import to_dict
from dualasr_lib.data.batch import Example, collate
from dualasr_lib.decoding.contract import Frames
from dualasr_lib.decoding.greedy import OnlineGreedy, greedy, greedy_search
from dualasr_lib.decoding.hypothesis import Hypothesis, TokenPath
from dualasr_lib.decoding.offline import Heard, Searched
from dualasr_lib.decoding.one_head import OneHead
from dualasr_lib.decoding.rescoring import Scales
from dualasr_lib.decoding.streaming import StreamingConfig, Watcher, decode_streams
from dualasr_lib.features.fbank import Fbank
from dualasr_lib.features.quiet import quiet_frame
from dualasr_lib.lattice.path import SearchConfig
from dualasr_lib.model.model_config import BRANCHES, Branch, IntegrationName
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.recognition.language import Language
from dualasr_lib.recognition.methods.method import Ingredients
from dualasr_lib.recognition.methods.registry import find
from dualasr_lib.recognition.trained_model import TrainedModel

LENGTHS = (16000, 5119, 5120, 5121, 31234, 300, 12345)  # samples; 5120 is one chunk of 320 ms


class Recording(NamedTuple):
    """A stand-in for data.Utterance."""

    id: str
    text: str
    samples: Tensor
    words: tuple[object, ...] = ()

    def audio(self) -> Tensor:
        return self.samples


class RecordingStep(NamedTuple):
    """What a step of `RecordingSearch` says of one stream."""

    partial: TokenPath
    state: tuple[int, object]
    num_committed: int


class RecordingSearch:
    """A greedy search that also keeps all log-probabilities of each stream."""

    def __init__(self) -> None:
        self._greedy = OnlineGreedy()
        self.seen: list[list[Tensor]] = []

    def open(self) -> tuple[int, object]:
        self.seen.append([])
        return len(self.seen) - 1, self._greedy.open()

    def step(
        self, frames: Sequence[Frames], states: Sequence[tuple[int, object]]
    ) -> list["RecordingStep"]:
        log_probs = [each["ctc"] for each in frames]
        steps = self._greedy.step(log_probs, [state for _, state in states])
        for (stream, _), rows in zip(states, log_probs):
            self.seen[stream].append(rows)
        return [
            RecordingStep(step.partial, (stream, step.state), step.num_committed)
            for (stream, _), step in zip(states, steps)
        ]

    def finish(self, state: tuple[int, object]) -> TokenPath:
        return self._greedy.finish(state[1])


SHARED = {"separate": (), "shared": ("ctc", "attention")}
EVERY_KIND = [
    (integration, branches, sharing)
    for integration in ("cascaded", "parallel", "shared")
    for branches in (("streaming", "full"), ("streaming",), ("full",))
    for sharing in ("separate", "shared")
]


@pytest.mark.parametrize(
    ("future", "chunk_ms", "integration"),
    [
        ((0, 0, 0, 0), 160, "cascaded"),
        ((2, 1, 2, 3), 320, "cascaded"),
        ((0, 0, 0, 0), 320, "parallel"),
        ((2, 1, 2, 3), 160, "shared"),
    ],
)
def test_streams_equal_whole_utterances(
    future: tuple[int, ...], chunk_ms: int, integration: IntegrationName
) -> None:
    model = trained_model(future, integration=integration)
    chunk = ChunkSpec.from_ms(chunk_ms, 2 * chunk_ms)
    generator = torch.Generator().manual_seed(6)
    audio = [0.1 * torch.randn(n, generator=generator) for n in LENGTHS]
    features = Fbank(model.config.features)
    examples = [Example(str(i), "", 0.0, features(x), ()) for i, x in enumerate(audio)]
    heard = model.hear(collate(examples), "streaming", chunk)
    log_probs, lens = heard.log_probs, heard.lens

    search, path = RecordingSearch(), model.streaming(chunk)
    utterances = [Recording(str(i), "", x) for i, x in enumerate(audio)]
    run = decode_streams(utterances, path, search, model.detokenise, StreamingConfig(num_streams=3))
    offline = greedy(log_probs, lens)
    for i, n in enumerate(lens.tolist()):
        assert n == path.num_output_frames(LENGTHS[i])
        streamed = torch.cat(search.seen[i])
        torch.testing.assert_close(streamed, log_probs[i, :n], rtol=1e-3, atol=1e-3)
        assert run.hypotheses[i].path.tokens == offline[i].tokens
    ahead = future[0] + future[1] + 2 * (future[2] + future[3])
    assert path.lookahead_samples == 120 + 160 * ahead


@pytest.mark.parametrize("branch", BRANCHES)
def test_digital_silence_is_heard_as_a_quiet_room(branch: Branch) -> None:
    """By both branches, and by streams as in whole utterances; sound around it is untouched."""
    model, chunk = trained_model(), ChunkSpec.from_ms(320, 640)
    generator = torch.Generator().manual_seed(1)
    sound, nothing = 0.1 * torch.randn(9000, generator=generator), torch.zeros(9000)
    audio = torch.cat([nothing, sound, nothing])
    features = Fbank(model.config.features)(audio)
    windows = [audio[max(0, 160 * t - 120) : 160 * t + 280] for t in range(len(features))]
    silent = [not bool(window.any()) for window in windows]
    room = quiet_frame(model.config.features)
    quiet = torch.where(torch.tensor(silent)[:, None], room, features)
    assert 100 < sum(silent) < len(silent) - 50
    said = model.hear(collate([Example("a", "", 0.0, features, ())]), branch, chunk).log_probs
    with torch.no_grad():
        encoded = model.model.encode(quiet[None], torch.tensor([len(quiet)]), chunk, (branch,))
        expected = model.model.frames(encoded[branch].h, branch)["ctc"]
    torch.testing.assert_close(said, expected)
    if branch == "streaming":
        search = RecordingSearch()
        path, items = model.streaming(chunk), [Recording("a", "", audio)]
        decode_streams(items, path, search, model.detokenise, StreamingConfig())
        streamed = torch.cat(search.seen[0])
        torch.testing.assert_close(streamed, said[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("integration", ["cascaded", "parallel", "shared"])
def test_full_branch_hears_the_future_and_streaming_does_not(integration: IntegrationName) -> None:
    model = trained_model(integration=integration)
    chunk = ChunkSpec.from_ms(320, 640)
    features = torch.randn(1, 128, 80)
    changed = features.clone()
    changed[:, 64:] += 1.0

    def both(x: Tensor) -> list[Tensor]:
        one = collate([Example("a", "", 0.0, x[0], ())])
        return [model.hear(one, branch, chunk).log_probs for branch in ("streaming", "full")]

    (streaming, full), (streaming2, full2) = both(features), both(changed)
    torch.testing.assert_close(streaming[:, :16], streaming2[:, :16])
    assert not torch.allclose(full[:, :16], full2[:, :16], atol=1e-3)


@pytest.mark.parametrize(("integration", "branches", "sharing"), EVERY_KIND)
def test_a_checkpoint_gives_the_same_recogniser(
    integration: IntegrationName, branches: tuple[Branch, ...], sharing: Any, tmp_path: Path
) -> None:
    """Written as training does, read as recognition does: the same log-probabilities."""
    made = trained_model(integration=integration, branches=branches, shared=SHARED[sharing])
    made.tokenizer.save(tmp_path / "lang")
    checkpoint = Checkpoint(
        step=1, epoch=1, model=made.model.state_dict(), average={}, average_count=0,
        config=to_dict(made.config), training={},
        fingerprints={"tokenizer": made.tokenizer.fingerprint},
    )  # fmt: skip
    save(checkpoint, tmp_path / file_name(1, None))
    loaded = TrainedModel.from_checkpoint(tmp_path, tmp_path, torch.device("cpu"))
    assert loaded.config == made.config and loaded.model.branches == branches
    one = collate([Example("a", "", 0.0, torch.randn(90, 80), ())])
    chunk = ChunkSpec.from_ms(320, 640)
    for branch in BRANCHES:
        if branch in branches:
            expected = made.hear(one, branch, chunk)
            found = loaded.hear(one, branch, chunk)  # weights lie otherwise: up to rounding
            torch.testing.assert_close(found[:2], expected[:2], rtol=1e-4, atol=1e-5)
            lists = [[[3, 4], [], [5]]]
            got, wanted = (side.score["attention"](lists)[0] for side in (found, expected))
            assert got == pytest.approx(wanted, rel=1e-4)
        else:
            with pytest.raises(ValueError, match=f"needs a model with a {branch} branch"):
                loaded.hear(one, branch, chunk)


def test_a_full_context_checkpoint_cannot_stream() -> None:
    model = trained_model(branches=("full",))
    with pytest.raises(ValueError, match=r"streaming branch, .* model.branches = \['full'\]"):
        model.streaming(ChunkSpec.from_ms(320, 640))


def test_reports_name_the_chunk_only_where_it_matters() -> None:
    chunk = ChunkSpec.from_ms(320, 640)
    plain = {"model": "random"}
    sized = {**plain, "chunk_ms": 320, "left_frames": 32}

    def described(model: TrainedModel, branch: Branch) -> dict[str, Any]:
        found = model.describe(branch, chunk)
        assert found.pop("weights") == model.fingerprint
        return found

    for integration, full in (("cascaded", sized), ("parallel", plain), ("shared", plain)):
        model = trained_model(integration=integration)
        assert described(model, "streaming") == {**sized, "algorithmic_ms": 327.5}
        assert described(model, "full") == full
        alone = trained_model(integration=integration, branches=("full",))
        assert described(alone, "full") == plain


def _recordings() -> list[Recording]:
    generator = torch.Generator().manual_seed(7)
    return [Recording(str(i), "", 0.1 * torch.randn(n, generator=generator))
            for i, n in enumerate(LENGTHS)]  # fmt: skip


class Listening:
    """An offline search that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []

    def __call__(self, heard: Heard) -> Searched:
        self.heard.append(heard)
        return greedy_search(heard)


def test_a_second_pass_hears_what_the_full_branch_hears() -> None:
    """Streamed hidden states instead of audio: the same log-probabilities and attention scores."""
    model = trained_model((2, 1, 2, 3), integration="cascaded")
    chunk = ChunkSpec.from_ms(320, 640)
    audio, listening, ended = _recordings(), Listening(), list[Hypothesis]()
    decode_streams(
        audio, model.streaming(chunk), OneHead(OnlineGreedy()), model.detokenise,
        StreamingConfig(num_streams=3), model.second_pass(listening),
        Watcher(on_final=ended.append),
    )  # fmt: skip
    features = Fbank(model.config.features)
    batch = collate([Example(item.id, "", 0.0, features(item.samples), ()) for item in audio])
    whole = model.hear(batch, "full", chunk)
    streaming = model.hear(batch, "streaming", chunk)
    assert len(listening.heard) == len(ended) == len(audio)
    lists = [[[3, 4], [], [5, 5, 3]]] * len(audio)
    scores = whole.score["attention"](lists)
    for heard, hypothesis in zip(listening.heard, ended):
        i = int(hypothesis.id)
        n = int(whole.lens[i])
        assert heard.lens.tolist() == [n]
        torch.testing.assert_close(heard.log_probs[0], whole.log_probs[i, :n], rtol=1e-3, atol=1e-3)
        assert not torch.allclose(heard.log_probs[0], streaming.log_probs[i, :n], atol=1e-2)
        assert heard.score["attention"](lists[:1])[0] == pytest.approx(scores[i], abs=1e-2)
        assert hypothesis.path.tokens == greedy(whole.log_probs, whole.lens)[i].tokens


def test_a_second_pass_tells_of_its_fall_backs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out at the first lattice: searched with a smaller one, and counted."""
    pytest.importorskip("k2")
    from dualasr_lib.lattice import search

    make, beams = search.ctc_lattices, list[float]()

    def limited(log_probs: Tensor, lens: Tensor, config: SearchConfig) -> Any:
        beams.append(config.output_beam)
        if len(beams) == 1:
            raise MemoryError
        return make(log_probs, lens, config)

    monkeypatch.setattr(search, "ctc_lattices", limited)
    model = trained_model(integration="cascaded")
    given = Ingredients(Language(), model.detokenise, model.tokenizer.vocab_size)
    lattices = find("1best").offline([], given).search(Scales())
    run = decode_streams(
        _recordings()[:2], model.streaming(ChunkSpec.from_ms(320, 640)), OneHead(OnlineGreedy()),
        model.detokenise, StreamingConfig(num_streams=1), model.second_pass(lattices),
    )  # fmt: skip
    assert beams[0] == 2 * beams[1] == beams[2]
    assert [hypothesis.fallbacks for hypothesis in run.hypotheses] == [1, 0]


@pytest.mark.parametrize(
    ("integration", "branches"),
    [
        ("parallel", ("streaming", "full")),
        ("shared", ("streaming", "full")),
        ("cascaded", ("streaming",)),
        ("cascaded", ("full",)),
    ],
)
def test_a_second_pass_needs_a_cascaded_model_of_both_branches(
    integration: IntegrationName, branches: tuple[Branch, ...]
) -> None:
    model = trained_model(integration=integration, branches=branches)
    with pytest.raises(ValueError, match=r'both branches and model.integration = "cascaded"'):
        model.second_pass(greedy_search)


def test_attention_scores_do_not_depend_on_company() -> None:
    """Lists of different sizes, in a batch with padding, and each text alone."""
    model, chunk = trained_model(), ChunkSpec.from_ms(320, 640)
    examples = [Example(str(n), "", 0.0, torch.randn(n, 80), ()) for n in (90, 41, 130)]
    lists = [[[3, 4], [5], []], [[6]], [[3] * 7, [4, 4]]]
    for branch in BRANCHES:
        together = model.hear(collate(examples), branch, chunk)
        scores = together.score["attention"](lists)
        assert [len(row) for row in scores] == [3, 1, 2]
        for example, texts, row in zip(examples, lists, scores):
            alone = model.hear(collate([example]), branch, chunk)
            for text, score in zip(texts, row):
                assert score < 0
                assert alone.score["attention"]([[text]])[0][0] == pytest.approx(score, abs=1e-3)


TRANSDUCER = ("transducer-greedy", "transducer-beam")


@pytest.mark.parametrize("method", TRANSDUCER)
def test_a_transducer_alone_is_heard_by_both_branches(method: str) -> None:
    """Streams equal whole utterances of the streaming branch; a second pass equals whole ones of
    the full branch on the same states; greedy texts are those of validation.
    """
    model = trained_model(heads=("transducer",))
    chunk = ChunkSpec.from_ms(320, 640)
    with torch.no_grad():
        for branch in BRANCHES:  # frames that differ more than random weights make them
            joiner = model.model.head("transducer", branch).transducer.joiner
            joiner.encoder.weight.mul_(20.0)
            joiner.output.bias[0] += 1.0

    def given(branch: Branch) -> Ingredients:
        return Ingredients(
            Language(),
            model.detokenise,
            model.tokenizer.vocab_size,
            tables=lambda head: model.tables(head, branch),
        )

    searches = {b: find(method).offline([], given(b)).search(Scales()) for b in BRANCHES}
    features = Fbank(model.config.features)
    examples = [Example(x.id, "", 0.0, features(x.audio()), ()) for x in _recordings()]
    whole = {b: searches[b](model.hear(collate(examples), b, chunk)) for b in BRANCHES}
    encoded = model.model.encode(
        collate(examples).features, collate(examples).feature_lens, chunk, BRANCHES
    )
    for branch in BRANCHES:
        texts = model.model.head("transducer", branch).texts(encoded[branch])
        found = [path.tokens for path in whole[branch].paths]
        assert found == texts or method != "transducer-greedy"
        assert len(set(found)) > 3
    online = find(method).online([], given("streaming"), Scales()).search
    run = decode_streams(
        _recordings(), model.streaming(chunk), online, model.detokenise,
        StreamingConfig(num_streams=3), model.second_pass(searches["full"]),
    )  # fmt: skip
    by_id = {hypothesis.id: hypothesis for hypothesis in run.hypotheses}
    for i, example in enumerate(examples):
        found = by_id[example.id]
        assert found.first_pass_text == model.detokenise(whole["streaming"].paths[i].tokens)
        assert found.path.tokens == whole["full"].paths[i].tokens


def test_weights_of_heads_that_are_missing() -> None:
    model = trained_model()
    with pytest.raises(ValueError, match=r"needs a full branch with a head transducer, but .*ctc"):
        model.tables("transducer", "full")
    with pytest.raises(ValueError, match="a head ctc gives searches its frames only"):
        model.tables("ctc", "streaming")
