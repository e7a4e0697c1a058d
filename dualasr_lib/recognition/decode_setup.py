"""What the decoding programs share: the model, language model, search and scales that a
`DecodeConfig` asks for.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from dualasr_lib.core.config import to_dict
from dualasr_lib.core.device import local_device
from dualasr_lib.core.progress import Progress
from dualasr_lib.data.batch import Batch
from dualasr_lib.data.folder import DATA_FILE, DataFolder
from dualasr_lib.decoding.confidence import ConfidentSearch, confident
from dualasr_lib.decoding.contract import OnlineSearch, SecondPass
from dualasr_lib.decoding.offline import Heard, OfflineSearch
from dualasr_lib.decoding.rescoring import Scales
from dualasr_lib.metrics.units import CHARACTER, UNITS, Unit
from dualasr_lib.model.joint import Branch
from dualasr_lib.recognition.calibration import Calibrator
from dualasr_lib.recognition.decode_config import DecodeConfig
from dualasr_lib.recognition.language import Language
from dualasr_lib.recognition.methods.method import Ingredients, OfflineMethod, SearchMethod
from dualasr_lib.recognition.methods.registry import DEFAULT, SECOND_PASS, find
from dualasr_lib.recognition.naming import ResultName, option_parts, scale_parts
from dualasr_lib.recognition.origin import open_origin
from dualasr_lib.recognition.trained_model import TrainedModel
from dualasr_lib.recognition.tuning import ChosenScales, TuningData, scales_for

__all__ = ["DecodeSetup", "OpenData", "ReadyOnline", "ReadySearch", "ReadySecondPass", "ValidData"]


_LOG = logging.getLogger(__name__)


class ValidData(Protocol):
    """What tuning needs of a data folder (`data.datamodule.DataModule` has it)."""

    def fingerprint(self, split: str) -> str:
        """Of a split's manifest; ValueError if it is missing."""

    def size(self, split: str) -> int:
        """Utterances of a split."""

    def valid_batches(self) -> Iterable[Batch]:
        """All utterances of split `valid`."""


OpenData = Callable[[TrainedModel, Path | None], ValidData]
"""(model, data folder) -> its data; called only if scales have to be chosen. Raises a ValueError
if there is no folder, or nothing to read it with."""


class ReadySearch(NamedTuple):
    """An offline search with its scales."""

    search: OfflineSearch
    scales: Scales
    params: dict[str, Any]
    """For the summary: model, options, scales and where these come from."""
    name: ResultName
    calibrator: Calibrator
    """Of the confidence that its paths carry."""


class ReadySecondPass(NamedTuple):
    """What rewrites a sentence at its end."""

    run: SecondPass
    params: dict[str, Any]
    name: ResultName
    """Of its results, the first pass not counted."""
    calibrator: Calibrator


class ReadyOnline(NamedTuple):
    """A search of running streams."""

    search: OnlineSearch
    params: dict[str, Any]
    name: ResultName
    calibrator: Calibrator


class _Wanted(NamedTuple):
    """A search of whole utterances that is asked for."""

    branch: Branch
    method: SearchMethod
    options: Sequence[str]
    usual: Sequence[str]
    """Options that go without saying."""
    scales: Mapping[str, float] | None
    label: str
    """The method's name in that of its results."""
    parts: tuple[str, ...] = ()
    """More of that name, which the options do not say."""


class DecodeSetup:
    """Everything that a configuration asks for.

    Raises:
        ValueError: as `open_origin`, a chunk that cannot be, or a data folder of other features.
    """

    def __init__(self, config: DecodeConfig, open_data: OpenData) -> None:
        self.config, self._open_data = config, open_data
        self.origin = open_origin(config, local_device(config.device))
        self.trained = self.origin.trained
        self.chunk = self.trained.chunk(config.chunk_ms, config.left_ms)
        self._check_features()

    def hear(self, branch: Branch) -> Callable[[Batch], Heard]:
        """One branch of the model, as searches want it."""
        self.trained.model.require(branch)
        return lambda batch: self.trained.hear(batch, branch, self.chunk)

    def methods(self, branch: Branch) -> list[str]:
        """The methods asked for; of all methods, those that the branch has the heads for.

        Raises:
            ValueError: the model has no such branch.
        """
        heads = self.trained.model.heads_of(branch)
        lacking = {name: self._heads(name) - heads.keys() for name in self.config.methods}
        if not self.config.every:
            return list(lacking)
        for name, missing in lacking.items():
            if missing:
                _LOG.info("%s on the %s branch is left out: it has no %s head", name, branch,
                          " and no ".join(sorted(missing)))  # fmt: skip
        return [name for name, missing in lacking.items() if not missing]

    def _heads(self, method: str) -> set[str]:
        """Those that a method needs with the options of the configuration."""
        return set(find(method).of(self.config.beam).heads)

    def offline(
        self, branch: Branch, method: str, options: Sequence[str] | None = None
    ) -> ReadySearch:
        """The search of whole utterances called `method`, with scales given or tuned.

        Args:
            options: of the method; None: the configuration's.
        """
        config = self.config
        options = config.beam if options is None else options
        return self._offline(_Wanted(branch, find(method), options, (), config.scales, method))

    def second_pass(self, method: str | None = None) -> ReadySecondPass:
        """A search on the full branch, over a stream's hidden states.

        Args:
            method: a search without options; None: the one that the configuration has options for.

        Raises:
            NoScalesError: as `scales_for`.
            ValueError: the model's full branch does not read the streaming one.
        """
        self.trained.model.encoders.check_second_pass()
        config, second = self.config, self.config.second
        by = () if second.name == SECOND_PASS else (f"second={second.name}",)
        wanted = _Wanted("full", second, config.second_options, second.second_pass or (),
                         config.second_scales, "two-pass", by)  # fmt: skip
        if method is not None:
            wanted = _Wanted("full", find(method), (), (), None, "two-pass")
        ready = self._offline(wanted)
        run = self.trained.second_pass(ready.search)
        return ReadySecondPass(run, ready.params, ready.name, ready.calibrator)

    def online(self, method: str) -> ReadyOnline:
        """The search of running streams called `method`. Its scales are those of the same search
        on whole utterances of the streaming branch, which gives the same texts.
        """
        found, config = find(method).of(self.config.beam), self.config
        self._hear("streaming", found)
        scales, params, language = Scales(), {}, self._language(found)
        if found.grid:
            whole = self.offline("streaming", method)
            scales = whole.scales
            chosen = ("scales", "scales_from")  # an optional language model may be missing
            params = {name: whole.params[name] for name in chosen if name in whole.params}
        made = found.online(config.beam, self._ingredients(language, "streaming"), scales)
        name = ResultName(
            "streaming",
            f"online-{self._label(found, method, language)}",
            (
                *self._model_parts("streaming"),
                *option_parts(found.stream_options(config.beam), found.stream_options(())),
                *self._language_parts(found, language),
                *scale_parts(config.scales),
            ),
        )
        described = self.trained.describe("streaming", self.chunk)
        calibrator = self._calibrator(name, described, language, scales)
        search = ConfidentSearch(made.search, calibrator.kept())
        return ReadyOnline(search, {**described, **made.params, **params}, name, calibrator)

    def two_pass_name(self, second: ReadySecondPass) -> ResultName:
        """The name of what the first pass and `second` give."""
        config = self.config
        method = find(config.methods[0])
        parts = option_parts(method.stream_options(config.beam), method.stream_options(()))
        named: tuple[str, ...] = () if method.name == DEFAULT else (f"first={method.name}",)
        given = scale_parts(config.scales, "first.")
        limit = config.second_budget_ms
        named += () if limit is None else (f"second_budget_ms={limit:g}",)
        variant = (*second.name.variant, *named, *(f"first.{part}" for part in parts), *given)
        return second.name._replace(variant=variant)

    def _hear(self, branch: Branch, method: SearchMethod) -> Callable[[Batch], Heard]:
        """`hear`; ValueError unless the branch has the heads that `method` needs."""
        for head in method.heads:
            self.trained.model.head(head, branch)
        return self.hear(branch)

    def _offline(self, wanted: _Wanted) -> ReadySearch:
        branch, method = wanted.branch, wanted.method.of(wanted.options)
        hear = self._hear(branch, method)
        language = self._language(method)
        made = method.offline(wanted.options, self._ingredients(language, branch))
        name = ResultName(
            branch,
            self._label(method, wanted.label, language),
            (
                *self._model_parts(branch),
                *wanted.parts,
                *option_parts(
                    method.whole_options(wanted.options), method.whole_options(wanted.usual)
                ),
                *self._language_parts(method, language),
            ),
        )
        described = self.trained.describe(branch, self.chunk)
        chosen = self._scales(made, name, described, hear, wanted.scales)
        params = {**described, **made.params}
        if made.propose is not None:
            params["scales"] = {name: chosen.scales.weight(name) for name in made.weighs}
            params["scales_from"] = chosen.source
        name = name._replace(variant=(*name.variant, *scale_parts(wanted.scales)))
        calibrator = self._calibrator(name, described, language, chosen.scales)
        search = confident(made.search(chosen.scales), calibrator.kept())
        return ReadySearch(search, chosen.scales, params, name, calibrator)

    def _calibrator(
        self, name: ResultName, described: dict[str, Any], language: Language, scales: Scales
    ) -> Calibrator:
        made_for = {**described, **language.params, "scales": dict(scales)}
        home = self.config.home
        path = None if home is None else name.calibration_file(home)
        return Calibrator(path, made_for, self.origin.calibrations(name))

    def _ingredients(self, language: Language, branch: Branch) -> Ingredients:
        trained = self.trained
        return Ingredients(
            language,
            trained.detokenise,
            trained.tokenizer.vocab_size,
            self._unit,
            lambda head: trained.tables(head, branch),
        )

    def _language(self, method: SearchMethod) -> Language:
        return self.origin.language(method) if self.config.uses_lm(method) else Language()

    def _label(self, method: SearchMethod, label: str, language: Language) -> str:
        lm = "-lm" if method.lm == "optional" and language.lm is not None else ""
        return f"{label}{lm}{'-words' if 'lexicon' in language.params else ''}"

    def _language_parts(self, method: SearchMethod, language: Language) -> tuple[str, ...]:
        """The files that are not those of DATA/lang, each with the beginning of its hash."""
        config, origin, parts = self.config, self.origin, []
        if language.lm is not None and config.lm is not None:
            usual = origin.is_usual(config.lm, None, method)
            parts += [] if usual else [f"lm={_with_hash(language.params['lm'])}"]
        if "lexicon" in language.params and config.lexicon is not None:
            usual = origin.is_usual(None, config.lexicon, method)
            parts += [] if usual else [f"lexicon={_with_hash(language.params['lexicon'])}"]
        return tuple(parts)

    def _model_parts(self, branch: Branch) -> tuple[str, ...]:
        """Checkpoint, average and chunk, where they are not what they are by themselves."""
        config, usual = self.config, self.trained.config.chunk
        parts = [] if config.epoch is None else [f"epoch{config.epoch}"]
        parts += [self.trained.average] if self.trained.average else []
        if branch in self.trained.model.encoders.chunked:
            chunk, left = config.chunk_ms, config.left_ms
            parts += [f"chunk{chunk}"] if chunk not in (None, usual.ms) else []
            parts += [f"left{left}"] if left not in (None, usual.left_ms) else []
        return tuple(parts)

    def _check_features(self) -> None:
        """What a data folder stores must be what the model hears."""
        wanted = to_dict(self.trained.config.features)
        if self._folder is not None and self._folder.features != wanted:
            raise ValueError(
                f"the features in {self.config.data_dir} must be those of the model, {wanted}, but "
                f"are {dict(self._folder.features)}: prepare the corpus with the model's"
            )

    @cached_property
    def _folder(self) -> DataFolder | None:
        """What the data folder says of itself; None without one, or of one that has `lang` only."""
        data_dir = self.config.data_dir
        if data_dir is None or not (data_dir / DATA_FILE).is_file():
            return None
        return DataFolder.read(data_dir)

    @property
    def _unit(self) -> Unit:
        if self._folder is None:
            return self.origin.unit or CHARACTER
        return UNITS[self._folder.units[0]]

    @property
    def _valid(self) -> str:
        return "valid" if self._folder is None else self._folder.used_for("valid").name

    @cached_property
    def _data(self) -> ValidData:
        return self._open_data(self.trained, self.config.data_dir)

    def _scales(
        self,
        method: OfflineMethod,
        name: ResultName,
        described: dict[str, Any],
        hear: Callable[[Batch], Heard],
        given: Mapping[str, float] | None,
    ) -> ChosenScales:
        valid = None
        if method.propose is not None and given is None:
            try:
                if self._data.size(self._valid):
                    valid = self._data.fingerprint(self._valid)
            except (ValueError, ImportError):  # no such split, or nothing to read it with
                valid = None
        detokenise = self.trained.detokenise
        data = TuningData(self._valid_batches, hear, detokenise, valid, self._unit)
        home = self.config.home
        path = None if home is None else name.scales_file(home)
        return scales_for(method, path, described, data, given, self.origin.scales(name))

    def _valid_batches(self) -> Iterable[Batch]:
        progress = Progress("tuning on valid", "utterances", self._data.size(self._valid))
        for batch in self._data.valid_batches():
            yield batch
            progress.add(len(batch.ids))
        progress.close("all scales tried")


def _with_hash(named: str) -> str:
    """`name.arpa 0123456789ab` -> `name.012345`."""
    name, _, digest = named.rpartition(" ")
    return f"{Path(name).stem}.{digest[:6]}"
