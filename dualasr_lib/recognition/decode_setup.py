"""What the decoding programs share: their options, and the model, data, language model, search and
scales that these ask for.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.program import Progress
from dualasr_lib.data.batch import Batch
from dualasr_lib.data.datamodule import DataModule
from dualasr_lib.decoding.contract import OnlineSearch, SecondPass
from dualasr_lib.decoding.offline import Heard, OfflineSearch
from dualasr_lib.decoding.rescoring import Scales
from dualasr_lib.model.joint import Branch
from dualasr_lib.recognition.language import Language, default_lm, load_language
from dualasr_lib.recognition.recogniser import Recogniser
from dualasr_lib.recognition.searches import (
    LM_METHODS,
    WEIGHTED_METHODS,
    Method,
    OfflineMethod,
    offline_method,
    online_method,
)
from dualasr_lib.recognition.tuning import ChosenScales, TuningData, parse_scales, scales_for
from dualasr_lib.training.distributed import local_device

__all__ = [
    "SECOND_PASS_OPTIONS",
    "DecodeSetup",
    "ReadyOnline",
    "ReadySearch",
    "ReadySecondPass",
    "add_decode_arguments",
]


SECOND_PASS_OPTIONS = ("text_beam=3.0",)
"""Somebody waits for the second pass, and hardly any text that is further behind by CTC is chosen
in the end: on `valid` of the demo corpus the CER is the same with a third of the texts.
"""


class ReadySearch(NamedTuple):
    """An offline search with its scales."""

    search: OfflineSearch
    scales: Scales
    params: dict[str, Any]
    """For the summary: model, options, scales and where these come from."""
    directory: Path
    """EXP/decode/<branch>-<method>."""


class ReadySecondPass(NamedTuple):
    """What rewrites a sentence at its end."""

    run: SecondPass
    params: dict[str, Any]
    name: str
    """What its results are called: two-pass, with -lm or -words if it has a language model."""


class ReadyOnline(NamedTuple):
    """A search of running streams."""

    search: OnlineSearch
    params: dict[str, Any]
    name: str
    """What its results are called: online-<method>, with -words if it has a lexicon."""


def add_decode_arguments(
    parser: ArgumentParser, methods: Sequence[Method], several: bool = False
) -> None:
    """The options that all decoding programs share.

    Args:
        methods: those to choose from.
        several: `--method` takes more than one, and is a list.
    """
    add = parser.add_argument
    add("--exp-dir", type=Path, required=True, help="what train.py wrote")
    add("--data-dir", type=Path, required=True, help="what prepare.sh wrote")
    add("--split", nargs="+", required=True, help="eval1 eval2 eval3 valid ...")
    add("--method", choices=methods, default=["1best"] if several else "1best",
        nargs="+" if several else None, help="default: 1best")  # fmt: skip
    add("--epoch", type=int, help="checkpoint; default: the newest")
    add("--avg", type=int, default=0, help="epochs to average; default: none")
    add("--chunk-ms", type=int, help="chunk of the streaming stacks; default: the config's")
    add("--left-ms", type=int, help="their left context; default: the config's")
    add("--beam", nargs="*", default=[], metavar="KEY=VALUE", help="options of the search")
    add("--lm", type=Path, metavar="ARPA", help="n-gram of tokens, or with --lexicon of words;\n"
        "for both passes; default: DATA/lang's, of lowest order for hlg, else highest")  # fmt: skip
    add("--lexicon", type=Path, metavar="FILE", help="words and their tokens, e.g. DATA/lang's")
    add("--scales", nargs="+", metavar="NAME=VALUE",
        help="lm=, attention=; default: tuned on valid, kept in scales.json")  # fmt: skip
    add("--device", default="auto", help="auto, cpu or cuda")


class DecodeSetup:
    """Everything that the options of `add_decode_arguments` ask for.

    Raises:
        ValueError: as `Recogniser.load`, a chunk that cannot be, or data that are missing.
    """

    def __init__(self, arguments: Namespace) -> None:
        _check_unused(arguments)
        self._arguments = arguments
        self._languages: dict[Path, Language] = {}
        self.recogniser = Recogniser.load(
            arguments.exp_dir,
            arguments.data_dir,
            local_device(arguments.device),
            arguments.epoch,
            arguments.avg,
        )
        self.chunk = self.recogniser.chunk(arguments.chunk_ms, arguments.left_ms)
        self.data = DataModule(
            self.recogniser.config.data, arguments.data_dir, self.recogniser.tokenizer
        )

    def hear(self, branch: Branch) -> Callable[[Batch], Heard]:
        """One branch of the model, as searches want it."""
        self.recogniser.model.require(branch)
        return lambda batch: self.recogniser.hear(batch, branch, self.chunk)

    def offline(self, branch: Branch, method: Method, options: Sequence[str]) -> ReadySearch:
        """The search of whole utterances called `method`, with scales given or tuned.

        Results go to EXP/decode/<branch>-<method>, with -words behind it if there is a lexicon,
        with -lm if `attention` has a language model, too.
        """
        given = parse_scales(self._arguments.scales)
        return self._offline(branch, method, options, f"{branch}-{method}", given)

    def _offline(
        self,
        branch: Branch,
        method: Method,
        options: Sequence[str],
        name: str,
        given: Mapping[str, float] | None,
    ) -> ReadySearch:
        hear = self.hear(branch)
        language = self._language(method)
        made = offline_method(method, options, language, self.recogniser.detokenise)
        extra = "-lm" if method == "attention" and language.lm is not None else ""
        folder = f"{name}{extra}{_words(language)}"
        directory = self._arguments.exp_dir / "decode" / folder
        described = self.recogniser.describe(branch, self.chunk)
        chosen = self._scales(made, directory, described, hear, given)
        params = {**described, **made.params}
        if made.propose is not None:
            scales = chosen.scales
            params["scales"] = {name: scales.weight(name) for name in ("lm", "attention")}
            params["scales_from"] = chosen.source
        return ReadySearch(made.search(chosen.scales), chosen.scales, params, directory)

    def second_pass(self, options: Sequence[str] = ()) -> ReadySecondPass:
        """Attention rescoring of the full branch over a stream's hidden states; its scales are kept
        in EXP/decode/full-<name>.

        Raises:
            ValueError: the model's full branch does not read the streaming one.
        """
        self.recogniser.model.encoders.check_second_pass()
        given = parse_scales(self._arguments.second_scales)
        every = [*SECOND_PASS_OPTIONS, *options]
        ready = self._offline("full", "attention", every, "full-two-pass", given)
        name = ready.directory.name.removeprefix("full-")
        return ReadySecondPass(self.recogniser.second_pass(ready.search), ready.params, name)

    def online(self, method: Method, options: Sequence[str]) -> ReadyOnline:
        """The search of running streams called `method`. Its scales are those of the same search
        on whole utterances of the streaming branch, which gives the same texts.
        """
        scales, params = Scales(), {}
        if method in LM_METHODS:
            whole = self.offline("streaming", method, options)
            scales, params = whole.scales, {"scales_from": whole.params["scales_from"]}
        vocab_size = self.recogniser.tokenizer.vocab_size
        language = self._language(method)
        made = online_method(method, options, vocab_size, language, scales)
        described = self.recogniser.describe("streaming", self.chunk)
        name = f"online-{method}{_words(language)}"
        return ReadyOnline(made.search, {**described, **made.params, **params}, name)

    def _language(self, method: Method) -> Language:
        arguments = self._arguments
        asked_for = arguments.lm is not None or arguments.lexicon is not None
        if method not in LM_METHODS and not (method == "attention" and asked_for):
            return Language()
        arpa = arguments.lm or default_lm(
            arguments.data_dir / "lang",
            words=arguments.lexicon is not None,
            highest=method != "hlg",
        )
        if arpa not in self._languages:
            tokenizer = self.recogniser.tokenizer
            self._languages[arpa] = load_language(tokenizer, arpa, arguments.lexicon)
        return self._languages[arpa]

    def _scales(
        self,
        method: OfflineMethod,
        directory: Path,
        described: dict[str, Any],
        hear: Callable[[Batch], Heard],
        given: Mapping[str, float] | None,
    ) -> ChosenScales:
        made_for = described
        if method.propose is not None and given is None:
            valid = self.data.fingerprint("valid")
            made_for = {**described, "weights": self.recogniser.fingerprint, "valid": valid}
        data = TuningData(self._valid_batches, hear, self.recogniser.detokenise)
        return scales_for(method, directory, made_for, data, given)

    def _valid_batches(self) -> Iterable[Batch]:
        progress = Progress("tuning on valid", "utterances")
        for batch in self.data.valid_batches():
            yield batch
            progress.add(len(batch.ids))
        progress.close("scales chosen")


def _words(language: Language) -> str:
    return "-words" if "lexicon" in language.params else ""


def _check_unused(arguments: Namespace) -> None:
    """ValueError for options that the methods asked for would ignore."""
    methods = [arguments.method] if isinstance(arguments.method, str) else arguments.method
    idle = [method for method in methods if method not in WEIGHTED_METHODS]
    two_pass = getattr(arguments, "two_pass", False)
    for name, of_use in (("scales", not idle), ("lm", not idle or two_pass),
                         ("lexicon", not idle or two_pass)):  # fmt: skip
        if getattr(arguments, name) is not None and not of_use:
            raise ValueError(
                f"--{name} is for methods that weigh scores ({', '.join(WEIGHTED_METHODS)}), "
                f"but the method is {', '.join(idle)}"
            )
    if getattr(arguments, "second_scales", None) is not None and not two_pass:
        raise ValueError("--second-scales is for --two-pass, which was not given")
