"""From a corpus to a data folder in seven restartable stages, the same for every corpus.

    1 manifests   corpus checked, lhotse prepare      5 tokens   sentencepiece, tokens.txt
    2 text        normalised, in all its forms        6 n-grams  of tokens, of words; lexicon
    3 utterances  joined, speed perturbation          7 report   counts, hours, what was left out
    4 features    kaldifeat, lilcom

When stages 1 to 5 are done, `data.json` says what the folder is; it is away while one of them is
made again.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.config import to_dict
from dualasr_lib.data.folder import DATA_FILE, DataFolder, SplitInfo, TokensInfo
from dualasr_lib.data.lengths import keep_lengths, look_through, recall
from dualasr_lib.data.tokenizer import TOKENS_FILE, Tokenizer
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.recipe import features, language, manifests, report, text, utterances
from dualasr_lib.recipe.corpus import Corpus, O
from dualasr_lib.recipe.stage import Folders, Stage, lock

__all__ = ["prepare"]

_DESCRIBED = 5
"""What training needs is there after this stage."""


class _Step(NamedTuple):
    name: str
    run: Callable[[Corpus[Any], Any, Folders], None]
    parameters: dict[str, Any]
    """Beside the options that name the stage."""
    needs: tuple[int, ...]


def _steps(corpus: Corpus[O], options: O) -> list[_Step]:
    """The seven stages: what each runs, the parameters that decide its result, the stages it
    reads.
    """
    joining = utterances.parameters(corpus, options)
    parts = {"corpus": corpus.name, "parts": list(corpus.parts(options))}
    names: dict[str, Any] = {}
    if corpus.converter is None:
        names["normaliser"] = corpus.normaliser(options)
    return [
        _Step("check the corpus, manifests by lhotse", manifests.run, parts, ()),
        _Step("text", text.run, names, (1,)),
        _Step("utterances", utterances.run, joining, (1, 2)),
        _Step("features", features.run, features.parameters(), (3,)),
        _Step("tokens", language.run_tokenizer, {"spaces": corpus.has_spaces}, (3,)),
        _Step("n-gram language models", language.run_lm, {}, (2, 3, 5)),
        _Step("report", report.run, {}, (1, 3, 4, 5, 6)),
    ]


def prepare(corpus: Corpus[O], options: O, first: int = 1, last: int = 7) -> None:
    """Runs the stages from `first` to `last`; stages with a marker are skipped.

    Raises:
        PrepareError: what the user has to put right.
    """
    corpus = corpus.adapted(options)
    stages: list[Stage] = []
    with lock(options.data_dir, shared=options.shares is not None):
        if options.shares is None:
            manifests.follow_source(options.data_dir, options.source)
        for number, step in enumerate(_steps(corpus, options), start=1):
            needs = [stages[i - 1] for i in step.needs]
            parameters = step.parameters | options.of_stage(number)
            stage = Stage(options.data_dir, number, parameters, needs)
            stages.append(stage)
            if options.shares is not None:
                if step.run is features.run:
                    _run_share(stage, corpus, options, *options.shares)
            elif first <= number <= last:
                _run(stage, step, corpus, options)
        if options.shares is None and all(stage.fits() for stage in stages[:_DESCRIBED]):
            _describe(corpus, options)


def _run(stage: Stage, step: _Step, corpus: Corpus[O], options: O) -> None:
    stage.check_inputs()
    if stage.is_done():
        print(f"stage {stage.number}: {step.name}: done before", flush=True)
        for line in stage.about_left_out(options.source):
            print(line, file=sys.stderr, flush=True)
        return
    print(f"stage {stage.number}: {step.name}", flush=True)
    if stage.number <= _DESCRIBED:
        (options.data_dir / DATA_FILE).unlink(missing_ok=True)
    start = time.monotonic()
    with stage.building(keep_partial=step.run is features.run) as folders:
        step.run(corpus, options, folders)
    print(f"stage {stage.number}: done in {time.monotonic() - start:.1f} s", flush=True)


def _run_share(stage: Stage, corpus: Corpus[O], options: O, number: int, count: int) -> None:
    stage.check_inputs()
    if not stage.is_done():
        print(f"stage {stage.number}: share {number + 1} of {count}", flush=True)
        features.run_share(corpus, options, stage.partial().scratch, number, count)
    print(
        f"stage {stage.number}: share {number + 1} of {count} is done; when all are, the same "
        "command without --shard puts them together and goes on",
        flush=True,
    )


def _describe(corpus: Corpus[O], options: O) -> None:
    """Writes `data.json`, and beside the manifest for training how long its utterances are."""
    folder = _description(corpus, options)
    manifest = options.data_dir / folder.used_for("train").cuts
    tokenizer = Tokenizer.load(options.data_dir / "lang")
    if recall(manifest, tokenizer) is None:
        keep_lengths(manifest, tokenizer, look_through(manifest, tokenizer))
    folder.write(options.data_dir)


def _description(corpus: Corpus[O], options: O) -> DataFolder:
    tokens = options.data_dir / "lang" / TOKENS_FILE
    return DataFolder(
        corpus=corpus.name,
        language=corpus.language,
        normaliser=corpus.normaliser(options),
        units=corpus.units,
        features=to_dict(FbankConfig()),
        splits=tuple(
            SplitInfo(
                name=split.name,
                use=split.use,
                cuts=str(Path("cuts") / corpus.cuts_file(split.name)),
                pooled=split.pooled,
            )
            for split in corpus.splits(options)
        ),
        tokens=TokensInfo(
            kind=options.vocab_type,
            vocab_size=len(tokens.read_text(encoding="utf-8").splitlines()),
        ),
    )
