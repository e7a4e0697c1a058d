"""Stage 2: the text of every unit, normalised as the corpus says."""

from collections.abc import Callable

from dualasr_lib.recipe.corpus import Corpus, Item, O
from dualasr_lib.recipe.stage import (
    Folders,
    PrepareError,
    count_jsonl,
    progress,
    read_jsonl,
    write_jsonl,
)

__all__ = ["run"]


def run(corpus: Corpus[O], options: O, folders: Folders) -> None:
    """Writes `text/<corpus>_supervisions_<part>.jsonl.gz`."""
    convert = corpus.convert(options)
    for part in corpus.parts(options):
        source = options.data_dir / "manifests" / corpus.supervisions_file(part)
        total = count_jsonl(source)
        items = progress(read_jsonl(source), total, part)
        converted = (_named(convert, item) for item in items)
        written = write_jsonl(folders.out / "text" / source.name, converted)
        if written != total:
            raise PrepareError(
                f"stage 2, {part}: {total} units went in, {written} came out; please report this"
            )


def _named(convert: Callable[[Item], Item], unit: Item) -> Item:
    """`convert`; errors name the unit."""
    try:
        return convert(unit)
    except ValueError as error:
        raise PrepareError(f"unit {unit['id']}: {error}") from error
