"""prepare.sh on a tiny corpus: what it writes, its options, and how it refuses a wrong call."""

import dataclasses
import json
import random
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

pytest.importorskip("lhotse")
pytest.importorskip("lilcom")
pytest.importorskip("_kaldifeat")
pytest.importorskip("kaldingram")
pytest.importorskip("sentencepiece")
pytest.importorskip("matplotlib")

from lhotse import CutSet, SupervisionSet
from lhotse.recipes.csj import concat_csj_supervisions

from dualasr_lib.data.data_config import DataConfig
from dualasr_lib.data.datamodule import DataModule
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.features.fbank import Fbank, FbankConfig
from dualasr_lib.lattice.lexicon import LexiconLm
from dualasr_lib.lattice.lm import text_score
from dualasr_lib.lattice.ngram import NgramLm
from dualasr_lib.recipe.language import training_words
from dualasr_lib.recipe.prepare import prepare
from dualasr_lib.recipe.stage import PrepareError, lock, read_jsonl, write_jsonl
from dualasr_lib.recipe.utterances import utterances
from egs.csj.local.corpus import CSJ, SPLITS
from egs.csj.local.options import CsjOptions
from egs.csj.local.text import words_of

NAMES = [split.name for split in SPLITS]


@pytest.fixture(scope="module")
def data(tiny_csj: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the tiny corpus, all stages."""
    folder = tmp_path_factory.mktemp("data")
    prepare(CSJ, CsjOptions(csj_dir=tiny_csj, data_dir=folder, open=True, jobs=1))
    return folder


def _cuts(data: Path, split: str) -> CutSet:
    cuts = CutSet.from_jsonl(data / "cuts" / f"csj_cuts_{split}.jsonl.gz")
    return cuts.with_features_path_prefix(data)


def test_all_splits_are_there(data: Path) -> None:
    report = json.loads((data / "report" / "report.json").read_text(encoding="utf-8"))
    speakers = {split: report["splits"][split]["speakers"] for split in NAMES}
    dialogues_in_valid, dialogues_in_excluded = 1, 4
    assert speakers == {
        "train": 4,
        "valid": 39 + dialogues_in_valid,
        "eval1": 10,
        "eval2": 10,
        "eval3": 10,
        "excluded": 6 + dialogues_in_excluded,
    }
    assert report["corpus"]["talks"] == 78
    assert (data / "report" / "durations.png").stat().st_size > 5000
    assert "| train " in (data / "report" / "report.md").read_text(encoding="utf-8")


def test_training_utterances_come_at_three_speeds(data: Path) -> None:
    cuts = {cut.id: cut for cut in _cuts(data, "train")}
    plain = [id_ for id_ in cuts if "_sp" not in id_]
    assert len(cuts) == 3 * len(plain)
    assert list(cuts) != sorted(cuts)  # shuffled: lhotse's sampler reads in order
    for id_ in plain:
        assert cuts[f"{id_}_sp0.9"].duration == pytest.approx(cuts[id_].duration / 0.9, abs=1e-3)
        assert cuts[f"{id_}_sp1.1"].supervisions[0].text == cuts[id_].supervisions[0].text
    assert not any("_sp" in cut.id for cut in _cuts(data, "valid"))


def test_features_are_those_of_the_library(data: Path) -> None:
    """Stored features against our own extractor; lilcom rounds to multiples of 2**-5."""
    fbank = Fbank(FbankConfig())
    for cut in [*_cuts(data, "eval1").subset(first=3), *_cuts(data, "train").subset(first=3)]:
        expected = fbank(torch.from_numpy(cut.load_audio()[0])).numpy()
        stored = cut.load_features()
        assert stored.shape == expected.shape == (cut.num_frames, 80)
        assert np.abs(stored - expected).max() < 2**-5


def test_words_spell_the_text_and_lie_in_the_utterance(data: Path) -> None:
    for split in ("train", "eval1", "valid"):
        for cut in _cuts(data, split):
            (supervision,) = cut.supervisions
            words = supervision.alignment["word"]
            assert "".join(word.symbol for word in words) == supervision.text
            assert words[0].start >= -0.011
            assert words[-1].end <= cut.duration + 0.011
            assert all(a.end <= b.start + 1e-3 for a, b in pairwise(words))


def test_the_data_module_reads_it(data: Path) -> None:
    tokenizer = Tokenizer.load(data / "lang")
    module = DataModule(DataConfig(max_duration=30.0, num_workers=0), data, tokenizer)
    ids = [id_ for batch in module.train_batches(seed=0) for id_ in batch.ids]
    assert sorted(ids) == sorted(cut.id for cut in _cuts(data, "train"))
    utterance = module.split_cuts("eval1")[0]
    assert len(utterance.audio()) == round(utterance.duration * 16000)
    assert "".join(word.text for word in utterance.words) == utterance.text


def test_the_language_model_is_of_the_tokens_of_the_text(data: Path) -> None:
    arpa = (data / "lang" / "G_3gram.arpa").read_text(encoding="utf-8")
    unigrams = arpa.split("\\1-grams:")[1].split("\\2-grams:")[0].strip().splitlines()
    names = list(_symbols(data))
    used = {names[token] for text in _texts(data) for token in text}
    assert {line.split()[1] for line in unigrams} - {"<s>", "</s>", "<unk>"} == used - {"<unk>"}


def _symbols(data: Path) -> dict[str, int]:
    return {token: i for i, token in enumerate(Tokenizer.load(data / "lang").tokens)}


def _texts(data: Path) -> list[list[int]]:
    """Token ids of the training text."""
    lines = (data / "lang" / "text.txt").read_text(encoding="utf-8").splitlines()
    return [Tokenizer.load(data / "lang").encode(line) for line in lines]


def test_the_ngram_for_rescoring_is_longer(data: Path) -> None:
    short, long = (
        NgramLm.load(data / "lang" / f"G_{order}gram.arpa", _symbols(data)) for order in (3, 5)
    )
    assert (short.order, long.order) == (3, 5)
    for text in _texts(data):
        assert -20 < text_score(long, text) / (len(text) + 1) < 0


def test_the_lexicon_and_its_ngram_read_the_training_text(data: Path) -> None:
    lang = data / "lang"
    lm = LexiconLm.load(lang / "lexicon.txt", lang / "words_3gram.arpa", _symbols(data))
    for text in _texts(data):
        states = np.array([lm.start])
        for token in text:
            states = lm.advance(states, np.full(len(states), token)).target
        assert np.isfinite(lm.final(states)).any()
    assert len((lang / "lexicon.txt").read_text(encoding="utf-8").splitlines()) == 9
    assert "えー え ー" in (lang / "lexicon.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("mode", ["disfluent", "fluent"])
def test_words_are_those_of_the_training_utterances(
    data: Path, tiny_csj: Path, tmp_path: Path, mode: Literal["disfluent", "fluent"]
) -> None:
    """The corpus has nine words; two of them are no fluent ones."""
    _copy(data, tmp_path, "manifests", "text", "done/stage-1", "done/stage-2")
    options = CsjOptions(csj_dir=tiny_csj, data_dir=tmp_path, open=True, mode=mode, max_length=4.0)
    prepare(CSJ, options, first=3, last=3)
    prepare(CSJ, options, first=5, last=5)
    words = list(training_words(CSJ, options))
    lines = (tmp_path / "lang" / "text.txt").read_text(encoding="utf-8").splitlines()
    assert ["".join(utterance) for utterance in words] == lines
    assert len({word for utterance in words for word in utterance}) == {"fluent": 7}.get(mode, 9)


@pytest.mark.parametrize(
    ("raw", "disfluent", "fluent"),
    [
        ("(F_えー)+感動詞+エー それ+代名詞+ソレ", "えー それ", "それ"),
        ("(M_それ+代名詞+ソレ だ)+助動詞+ダ と+助詞+ト", "それ だ と", "それ だ と"),
        ("(A_二千+名詞+ニセン 人;２０００人)+名詞+ニン", "二千 人", "二千 人"),
        ("(A_シー+名詞+シー ディー;ＣＤ)+名詞+ディー を+助詞+ヲ", "ＣＤ を", "ＣＤ を"),
        ("", "", ""),
    ],
)
def test_words_of_a_unit(raw: str, disfluent: str, fluent: str) -> None:
    """Tags may reach over several words."""
    texts = {"disfluent": disfluent.replace(" ", ""), "fluent": fluent.replace(" ", "")}
    unit = {"id": "A01M0001_0001", "custom": {"raw": raw} | texts}
    assert words_of(unit, "disfluent") == disfluent.split()
    assert words_of(unit, "fluent") == fluent.split()


def test_a_unit_whose_words_are_not_its_text_is_named() -> None:
    unit = {"id": "A01M0001_0007", "custom": {"raw": "それ+代名詞+ソレ", "fluent": "これ"}}
    with pytest.raises(PrepareError, match=r"A01M0001_0007: its words spell 'それ', .* 'これ'"):
        words_of(unit, "fluent")


def test_a_second_run_skips_all_stages(data: Path, tiny_csj: Path, capsys: Any) -> None:
    prepare(CSJ, CsjOptions(csj_dir=tiny_csj, data_dir=data, open=True, jobs=2))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert all(line.endswith("done before") for line in lines)


def test_other_parameters_are_refused_with_the_difference(data: Path, tiny_csj: Path) -> None:
    with pytest.raises(PrepareError, match=r"mode was 'disfluent', is 'fluent'.*remove .*stage-3"):
        prepare(CSJ, CsjOptions(csj_dir=tiny_csj, data_dir=data, open=True, mode="fluent"))
    with pytest.raises(PrepareError, match=r"stage 6.*order was 3, is 2"):
        prepare(CSJ, CsjOptions(csj_dir=tiny_csj, data_dir=data, open=True, order=2))
    with pytest.raises(PrepareError, match=r"stage 6.*rescoring_order was 5, is 4"):
        prepare(CSJ, CsjOptions(csj_dir=tiny_csj, data_dir=data, open=True, rescoring_order=4))


def test_a_stage_needs_its_inputs(tiny_csj: Path, tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match=r"stage 3 needs stage 1.*start with --stage 1"):
        prepare(CSJ, CsjOptions(csj_dir=tiny_csj, data_dir=tmp_path / "data"), first=3)


def test_two_programs_cannot_share_a_data_folder(tmp_path: Path) -> None:
    expected = pytest.raises(PrepareError, match=r"another prepare.sh is at work")
    with lock(tmp_path), expected, lock(tmp_path, patience=0.0):
        pass


def test_fluent_mode_and_pieces(data: Path, tiny_csj: Path, tmp_path: Path) -> None:
    _copy(data, tmp_path, "manifests", "text", "done/stage-1", "done/stage-2")
    options = CsjOptions(
        csj_dir=tiny_csj,
        data_dir=tmp_path,
        open=True,
        mode="fluent",
        jobs=1,
        vocab_type="bpe",
        vocab_size=30,
    )
    prepare(CSJ, options)
    spoken = {cut.id: cut.supervisions[0] for cut in _cuts(data, "eval1")}
    fluent = {cut.id: cut.supervisions[0] for cut in _cuts(tmp_path, "eval1")}
    assert fluent.keys() <= spoken.keys()
    assert sum(len(fluent[id_].text) < len(spoken[id_].text) for id_ in fluent) > 10
    for supervision in fluent.values():
        assert supervision.text == supervision.custom["fluent"]
        assert "".join(word.symbol for word in supervision.alignment["word"]) == supervision.text
        assert not {"えー", "だ"} & {word.symbol for word in supervision.alignment["word"]}
    assert Tokenizer.load(tmp_path / "lang").vocab_size == 30
    lang = tmp_path / "lang"
    LexiconLm.load(lang / "lexicon.txt", lang / "words_3gram.arpa", _symbols(tmp_path))


def _copy(data: Path, target: Path, *names: str) -> None:
    """Parts of a data folder start another one; stages whose markers come along are skipped."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (data / name).is_dir() else shutil.copyfile
        copy(data / name, target / name)


def _random_units(rng: random.Random) -> list[dict[str, Any]]:
    """Units of two speakers with pauses, lengths and masked names on both sides of the limits."""
    units = []
    for speaker in ("A01M0001", "A01M0002"):
        time = 0.0
        for number in range(60):
            duration = round(rng.uniform(0.2, 5.0), 3)
            text = rng.choice(["あい", "う", "××", "えお"])
            custom = {
                "raw": f"{text}+名詞+ヨミ",
                "disfluent": text,
                "disfluent_tag": "," * (len(text) - 1),
            }
            units.append(
                {
                    "id": f"{speaker}_{number:04d}",
                    "recording_id": speaker,
                    "start": time,
                    "duration": duration,
                    "channel": 0,
                    "text": text,
                    "speaker": speaker,
                    "custom": custom,
                }
            )
            time = round(time + duration + rng.choice([0.3, 0.999, 1.0, 2.0]), 3)
    return units


@pytest.mark.parametrize("max_length", [10.0, 4.0])
def test_joining_is_that_of_the_published_recipe(max_length: float) -> None:
    units = _random_units(random.Random(0))
    theirs = concat_csj_supervisions(
        SupervisionSet.from_dicts(json.loads(json.dumps(units))), 1.0, max_length
    )
    options = CsjOptions(csj_dir=Path(), data_dir=Path(), max_length=max_length)
    ours = list(utterances(CSJ, options, units))
    assert 10 < len(ours) < len(units)
    assert [(u["id"], u["start"], u["custom"]) for u in ours] == [
        (s.id, s.start, s.custom) for s in theirs
    ]
    assert [u["duration"] for u in ours] == pytest.approx([s.duration for s in theirs])


def test_masked_units_and_empty_ones_are_reported(
    data: Path, tiny_csj: Path, tmp_path: Path
) -> None:
    _copy(data, tmp_path, "manifests", "text", "done/stage-1", "done/stage-2")
    path = tmp_path / "text" / "csj_supervisions_eval1.jsonl.gz"
    units = list(read_jsonl(path))
    units[0]["custom"]["raw"] = "(R_××)+名詞+ヨミ"
    for unit in units[4:8]:  # a whole talk
        unit["custom"]["disfluent"] = ""
    write_jsonl(path, units)
    prepare(CSJ, CsjOptions(csj_dir=tiny_csj, data_dir=tmp_path, open=True), first=3, last=3)
    left_out = json.loads((tmp_path / "utterances/left_out.json").read_text(encoding="utf-8"))
    assert left_out["eval1"].pop("units with a masked name (×)") == [units[0]["id"]]
    (empty,) = left_out["eval1"].values()
    assert set(empty) <= {unit["id"] for unit in units[4:8]}
    kept = {cut["id"] for cut in read_jsonl(tmp_path / "utterances/csj_cuts_eval1.jsonl.gz")}
    assert not kept & {units[0]["id"], *empty}
    assert len(kept) > 10


def test_utterances_without_readable_audio_are_named(
    data: Path, tiny_csj: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _copy(data, tmp_path, "utterances", *(f"done/stage-{k}" for k in (1, 2, 3)))
    path = tmp_path / "utterances" / "csj_cuts_eval2.jsonl.gz"
    cuts = list(read_jsonl(path))
    source = cuts[3]["recording"]["sources"][0]
    good, source["source"] = source["source"], str(tmp_path / "gone.wav")
    write_jsonl(path, cuts)
    options = CsjOptions(csj_dir=tiny_csj, data_dir=tmp_path, open=True, jobs=1)

    with pytest.raises(PrepareError, match=r"1 utterances have no readable audio.*--allow-bad 1"):
        prepare(CSJ, options, first=4, last=4)
    assert f"bad utterance {cuts[3]['id']}: " in capsys.readouterr().err

    prepare(CSJ, dataclasses.replace(options, allow_bad=1), first=4, last=4)
    left = [cut["id"] for cut in read_jsonl(tmp_path / "cuts" / path.name)]
    assert left == [cut["id"] for cut in cuts if cut["id"] != cuts[3]["id"]]
    (bad,) = json.loads((tmp_path / "report" / "bad_utterances.json").read_text())
    assert bad["id"] == cuts[3]["id"]

    (tmp_path / "done" / "stage-4").unlink()
    source["source"] = good
    write_jsonl(path, cuts)
    prepare(CSJ, options, first=4, last=4)
    name = Path("cuts") / path.name
    assert (tmp_path / name).read_bytes() == (data / name).read_bytes()
