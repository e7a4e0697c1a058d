"""Heads: any subset on either branch, what each of them says of given texts, and what it finds by
itself, against slow references.
"""

import itertools
import math

import pytest
import torch
from joint_cases import CHUNK, VOCAB, joint_model, make_batch, stack, stir
from torch import Tensor

from dualasr_lib.core.config import from_dict, to_dict
from dualasr_lib.decoding.greedy import greedy
from dualasr_lib.model.attention_decoder import DecoderConfig
from dualasr_lib.model.distillation import DistillationConfig
from dualasr_lib.model.encoder import Encoded
from dualasr_lib.model.heads.attention import AttentionHead
from dualasr_lib.model.heads.contract import Head, HeadSizes, NbestTexts
from dualasr_lib.model.heads.ctc import CtcHead, ctc_text_scores
from dualasr_lib.model.heads.registry import HEADS, HeadsConfig
from dualasr_lib.model.heads.transducer import TransducerHeadConfig
from dualasr_lib.model.losses import LossConfig, total_loss
from dualasr_lib.model.model_config import ModelConfig
from dualasr_lib.model.transducer.settings import TransducerConfig

SIZES = HeadSizes(vocab_size=5, dim=6, sos_eos=1)
_TWO = [("ctc",), ("attention",), ("ctc", "attention")]
PAIRS = [
    *itertools.product(_TWO, _TWO),
    (("ctc", "transducer"), ("ctc", "attention", "transducer")),
    (("transducer",), ("attention", "transducer")),
    (("ctc", "attention", "transducer"), ("transducer",)),
    (("transducer",), ("attention",)),
]
"""Heads of the streaming and of the full branch."""


def head_of(name: str) -> Head:
    """A stirred head of five tokens that reads six channels."""
    torch.manual_seed(0)
    options = HeadsConfig(
        attention=DecoderConfig(layers=1, dim=8, heads=2, feedforward=8),
        transducer=TransducerHeadConfig(sizes=TransducerConfig(dim=8, joiner_dim=12)),
    )
    head = HEADS[name](getattr(options, name), SIZES)
    stir(head)
    return head.eval()


def states(lens: tuple[int, ...], seed: int = 0) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(len(lens), max(lens), SIZES.dim, generator=generator)
    return Encoded(h, torch.tensor(lens))


@pytest.mark.parametrize(("streaming", "full"), PAIRS)
def test_any_subset_on_either_branch_trains(
    streaming: tuple[str, ...], full: tuple[str, ...]
) -> None:
    """Every parameter gets a gradient; what both branches have is distilled."""
    kd = DistillationConfig(encoder_weight=2.0, head_weights={"attention": 3.0, "transducer": 2.0})
    model = joint_model(kd, heads={"streaming": streaming, "full": full}).eval()
    losses = model(*make_batch(), CHUNK)
    assert {name: set(its) for name, its in losses.heads.items()} == {
        name: {b for b, listed in (("streaming", streaming), ("full", full)) if name in listed}
        for name in HEADS
        if name in {*streaming, *full}
    }
    both = [n for n in ("attention", "transducer") if n in streaming and n in full]
    assert losses.distilled is not None and list(losses.distilled.heads) == both
    assert all(float(loss.detach()) > 0 for loss in losses.distilled.heads.values())
    config = LossConfig(heads={"ctc": 0.25, "attention": 0.75, "transducer": 1.5}, distillation=kd)
    parts = losses.parts(config)
    assert list(parts) == [
        "streaming", "full", "distillation_encoder", *(f"distillation_{n}" for n in both)
    ]  # fmt: skip
    for branch in ("streaming", "full"):
        expected = sum(
            weight * losses.heads[name][branch] / losses.num_tokens
            for name, weight in config.heads.items()
            if branch in losses.heads.get(name, {})
        )
        torch.testing.assert_close(parts[branch], expected)
    total_loss(parts).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert losses.impossible.shape == (3,)


@pytest.mark.parametrize(("streaming", "full"), PAIRS)
def test_branches_keep_what_they_say_whatever_the_other_has(
    streaming: tuple[str, ...], full: tuple[str, ...]
) -> None:
    """With the weights of the model of all heads, each loss is that of the model of all heads."""
    everything = {"streaming": tuple(HEADS), "full": tuple(HEADS)}
    whole = joint_model(heads=everything, seed=1).eval()
    part = joint_model(heads={"streaming": streaming, "full": full}, seed=2).eval()
    weights = whole.state_dict()
    part.load_state_dict({name: weights[name] for name in part.state_dict()})
    expected, got = whole(*make_batch(), CHUNK), part(*make_batch(), CHUNK)
    for name, its in got.heads.items():
        for branch, loss in its.items():
            assert torch.equal(loss, expected.heads[name][branch])


def test_one_head_may_be_shared_and_another_not() -> None:
    model = joint_model(heads={"shared": ("attention",)})
    assert list(model.heads["ctc"]) == ["streaming", "full"]
    assert list(model.heads["attention"]) == ["shared"]
    assert model.head("attention", "full") is model.head("attention", "streaming")
    assert model.head("ctc", "full") is not model.head("ctc", "streaming")
    joint_model(heads={"shared": ("attention",), "streaming": ("attention",)})
    joint_model(heads={"full": ("ctc",), "streaming": ("ctc",)}, full=(stack(dim=24),))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"streaming": []}, r"each branch must have at least one head, but streaming has \[\]"),
        (
            {"full": ["ctc", "tdt"]},
            r"full must name heads \(ctc, attention, transducer\), but .* 'tdt'",
        ),
        ({"full": ["ctc", "ctc"]}, "full must name each head once"),
        (
            {"shared": ["ctc"], "full": ["attention"]},
            r"none of \['ctc'\] is both in streaming = .* and in full = \['attention'\]",
        ),
        ({"ctc": {"dropout": 1.0}}, r"section 'ctc': dropout must lie in \[0, 1\)"),
    ],
)
def test_heads_that_cannot_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(HeadsConfig, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"heads": {"tdt": 1.0}}, "heads must name heads .* no head 'tdt'"),
        ({"heads": {"ctc": -0.1}}, "must be >= 0, but heads.ctc is -0.1"),
        ({"heads": {"ctc": math.nan}}, "must be >= 0, but heads.ctc is nan"),
        ({"heads": {"ctc": "much"}}, "heads.ctc must be float"),
        ({"heads": 0.3}, "heads must be a section"),
        ({"distillation": {"head_weights": {"x": 1.0}}}, "distillation.head_weights must name"),
        ({"ctc": 0.3}, r"'ctc' is now said by head: \[loss.heads\] ctc = 0.3"),
        ({"distillation": {"decoder_weight": 3.0}}, "is now said by head: loss.distillation.head"),
    ],
)
def test_weights_that_cannot_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(LossConfig, values)


@pytest.mark.parametrize("key", ["decoder", "ctc_dropout", "decoder_sharing"])
def test_what_was_said_elsewhere_before(key: str) -> None:
    with pytest.raises(ValueError, match=rf"'{key}' is now .*model\.heads"):
        from_dict(ModelConfig, {key: {}})


def test_heads_survive_a_file() -> None:
    config = LossConfig(heads={"ctc": 1, "attention": 0.5})
    plain = to_dict(config)
    assert plain["heads"] == {"ctc": 1, "attention": 0.5}
    assert from_dict(LossConfig, plain) == config
    heads = HeadsConfig(streaming=("attention",), shared=("attention",))
    assert from_dict(HeadsConfig, to_dict(heads)) == heads


def test_distributions_of_frames_need_a_head_that_gives_them() -> None:
    kd = DistillationConfig(method="logit_kl", encoder_weight=1.0)
    with pytest.raises(ValueError, match=r"no head of the full branch says that: it has attention"):
        joint_model(kd, heads={"full": ("attention",)})
    joint_model(kd, heads={"full": ("attention",)}, branches=("full",))
    sp_kd = joint_model(heads={"full": ("attention",), "streaming": ("attention",)})
    assert float(sp_kd(*make_batch(), CHUNK).distilled.encoder.detach()) > 0


def test_a_head_that_is_not_there_is_named() -> None:
    model = joint_model(heads={"streaming": ("attention",)}, branches=("streaming",))
    with pytest.raises(ValueError, match=r"head ctc, but .* model\.heads\.streaming = \['attent"):
        model.head("ctc", "streaming")
    with pytest.raises(ValueError, match="needs a model with a full branch"):
        model.head("attention", "full")
    assert model.frames(torch.randn(1, 3, 16), "streaming") == {}


def all_texts(longest: int) -> list[tuple[int, ...]]:
    """Of the tokens 2, 3 and 4."""
    return [
        text for size in range(longest + 1) for text in itertools.product((2, 3, 4), repeat=size)
    ]


def slow_ctc(log_probs: Tensor, text: tuple[int, ...]) -> float:
    """Sum over all label sequences that collapse to the text."""
    total = 0.0
    for labels in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        said = tuple(label for label, _ in itertools.groupby(labels) if label)
        if said == text:
            total += math.exp(sum(float(log_probs[t, k]) for t, k in enumerate(labels)))
    return math.log(total) if total else -math.inf


def test_ctc_scores_are_sums_over_all_alignments() -> None:
    """Texts of three utterances, in any order, padded with anything; one without frames."""
    head, said = head_of("ctc"), states((5, 3, 0))
    log_probs = head.frames(said.h)
    assert log_probs is not None
    pairs = [(text, owner) for owner in (1, 0, 2) for text in all_texts(3)[::3]]
    texts = NbestTexts.padded([text for text, _ in pairs], [owner for _, owner in pairs])
    inside = torch.arange(texts.tokens.shape[1])[None, :] < texts.lens[:, None]
    noisy = texts._replace(tokens=texts.tokens.where(inside, torch.tensor(4)))
    expected = [slow_ctc(log_probs[n, : int(said.lens[n])].double(), text) for text, n in pairs]
    assert any(math.isinf(value) for value in expected)
    for given in (texts, noisy):
        got = head.score(said, given)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    empty = ctc_text_scores(log_probs[:, :0], torch.tensor([0, 0, 0]), texts)
    assert empty.tolist() == [0.0 if not text else -math.inf for text, _ in pairs]


@pytest.mark.parametrize("name", list(HEADS))
def test_scores_belong_to_a_text_alone(name: str) -> None:
    """Not to its neighbours, nor to what stands behind the end of an utterance."""
    head, said = head_of(name), states((6, 4))
    texts = [(2, 3), (), (4, 4), (2,)]
    owners = [0, 1, 1, 0]
    together = head.score(said, NbestTexts.padded(texts, owners)).tolist()
    dirty = said.h.clone()
    dirty[1, 4:] = math.nan
    again = head.score(said._replace(h=dirty), NbestTexts.padded(texts, owners)).tolist()
    assert again == pytest.approx(together, abs=1e-5)
    for text, owner, score in zip(texts, owners, together):
        length = int(said.lens[owner])
        alone = Encoded(said.h[owner : owner + 1, :length], said.lens[owner : owner + 1])
        assert head.score(alone, NbestTexts.padded([text], [0])).tolist() == pytest.approx(
            [score], abs=1e-4
        )


def test_texts_of_ctc_are_greedy() -> None:
    head, said = head_of("ctc"), states((9, 4, 0, 7))
    log_probs = head.frames(said.h)
    assert log_probs is not None
    expected = [path.tokens for path in greedy(log_probs, said.lens)]
    assert head.texts(said) == expected
    assert expected[2] == () and any(expected)
    assert isinstance(head, CtcHead)


def test_texts_of_attention_take_the_best_next_token() -> None:
    """By scoring each continuation of the text so far; at most one token per frame."""
    head, said = head_of("attention"), states((6, 3, 0, 2))
    assert isinstance(head, AttentionHead)
    decoder = head.decoder
    for n, text in enumerate(head.texts(said)):
        length = int(said.lens[n])
        memory, lens = said.h[n : n + 1, :length], said.lens[n : n + 1]
        expected: list[int] = []
        while len(expected) < length:
            tokens, count = torch.tensor([expected]).long(), torch.tensor([len(expected)])
            last = decoder(memory, lens, tokens, count).log_probs[0, -1]
            best = int(last[1:].argmax()) + 1
            if best == SIZES.sos_eos:
                break
            expected.append(best)
        assert text == tuple(expected)
        assert len(text) <= length
    assert any(head.texts(said))


def test_heads_know_the_size_of_the_vocabulary() -> None:
    model = joint_model(heads={"full": tuple(HEADS)})
    frames = model.frames(torch.randn(2, 3, 16), "full")
    shapes = {"ctc": (2, 3, VOCAB), "transducer": (2, 3, 16)}  # of the joiner: see `TransducerHead`
    assert {name: tuple(said.shape) for name, said in frames.items()} == shapes
