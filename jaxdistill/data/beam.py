"""A corpus made by an Apache Beam pipeline: the files of `corpus.prepare`, byte for byte, on any number of machines.

    sources → chunks → parts, each ranks in its own sorted words (`words.encode`), keyed by its place in the text
    words of the parts, cut at the same bounds → ranges of the lexicon, each merged and counted by one worker
    parts + the ranges' ranks of their words → a file of ids for each part
    files of parts and of ranges, in order → the files of the corpus

A worker holds a chunk of text, or the words of one range: neither the corpus nor the lexicon. Chunks, bounds, bundles
and repeated work change no byte. Every attempt at a piece of work writes files of its own; those of the corpus get
their names from the command that waits for the pipeline, when all are there, and the manifest comes last.
"""

import collections
import contextlib
import itertools
import json
import operator
import os
import pathlib
import re
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers

import jaxdistill
from jaxdistill import files
from jaxdistill.data import corpus, lexicon, parts, words
from jaxdistill.data.sources import Source, describe
from jaxdistill.errors import UserError

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from jaxdistill.data import beam_files
except ImportError:
    raise UserError("--runner beam needs Apache Beam: pip install 'jaxdistill[beam]'") from None

HERE = "FnApiRunner"
"""Beam's runner in this process. Its `DirectRunner` is the same once it has failed to fetch another."""

SAMPLE = 1024
"""One word in so many, chosen by a hash, may bound a range of the lexicon."""
RANGE = 256
"""Every so many of those words do: with `SAMPLE`, some 260,000 words a range."""


@dataclass(frozen=True)
class _Written:
    """A part whose ids are written: its place, words, documents that start inside, structure, and the path."""

    number: int
    words: int
    starts: int
    structure: tuple[int, int, int]
    path: str


def prepare(
    sources: Sequence[str],
    out: str | os.PathLike,
    *,
    field: str = "text",
    runner: str = HERE,
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """Turns text into a corpus by a pipeline, and waits for it; after a failure it starts from the beginning.

    Args:
      sources: files as `corpus.prepare` takes them, or names and patterns of a file system that Beam knows, gs://...; a
        pattern stands for its files in the order of their names.
      out: the folder of the corpus, which every worker reaches by this name.
      field: the field of a row that holds its text.
      runner: Beam's name of what runs the pipeline.
      options: Beam's options, as on a command line.

    Returns:
      The manifest.

    Raises:
      UserError: as `corpus.prepare`, or Beam refuses the runner or its options.
    """
    pipeline = _pipeline(runner, options)
    found = [source for spec in sources for source in beam_files.find(os.fspath(spec))]
    settings = corpus.describe_settings(found, field)
    out = beam_files.absolute(os.fspath(out))
    names = beam_files.names_in(out)
    if corpus.is_made(out, names):
        return corpus.check_same(out, _manifest(out), [describe(source) for source in found], settings)
    folder = f"{out}/{corpus.PARTS}/beam"
    if corpus.PARTS in names:
        beam_files.remove(folder)
    try:
        _build(pipeline, found, field, folder)
        _run(pipeline)
        with beam_files.open_file(f"{folder}/summary") as file:
            made = json.load(file)
        if not made["counts"]["words"]:
            raise UserError(f"there are no words in {', '.join(map(str, sources))}: an empty text makes no corpus")
        hashes = {name: {"bytes": made["files"][name][1], "sha256": made["files"][name][2]} for name in corpus.FILES}
        manifest = corpus.make_manifest(made["sources"], settings, made["counts"], hashes)
        paths = {name: made["files"][name][0] for name in corpus.FILES}
        paths[corpus.MANIFEST], *_ = beam_files.write_new(f"{folder}/manifest", [files.json_text(manifest).encode()])
    except BaseException:
        with contextlib.suppress(OSError):
            beam_files.remove(folder)
        if not beam_files.scheme(out):
            corpus.remove_if_empty(pathlib.Path(out, corpus.PARTS), pathlib.Path(out))
        raise
    beam_files.publish(paths, out)
    beam_files.remove(f"{out}/{corpus.PARTS}")
    return manifest


def _manifest(out: str) -> dict[str, Any]:
    """The manifest of a finished corpus; the files beside it are read again where they are on a disk."""
    if not beam_files.scheme(out):
        return corpus.open_corpus(out).manifest
    with beam_files.open_file(f"{out}/{corpus.MANIFEST}") as file:
        return json.load(file)


def _pipeline(runner: str, options: Sequence[str]) -> beam.Pipeline:
    for before, word in itertools.pairwise(["", *options]):
        if not word.startswith("-") and (not before.startswith("--") or "=" in before):
            raise UserError(f"{word!r} is neither a file nor an option: files come first, Beam's options last")
    asked = PipelineOptions([f"--runner={runner}", *options])
    unknown = asked.get_all_options(retain_unknown_options=True).keys() - asked.get_all_options().keys()
    if unknown and runner == HERE:
        raise UserError(f"neither jaxdistill nor Beam knows the option --{min(unknown)}")
    try:
        return beam.Pipeline(options=asked)
    except (ValueError, ImportError) as error:
        raise UserError(f"Beam refuses to run on {runner}: {error}") from None


def _run(pipeline: beam.Pipeline) -> None:
    """Runs a pipeline to its end; what a worker raised as `UserError` is raised here, other errors as Beam has them."""
    result = None
    try:
        result = pipeline.run()
        state = result.wait_until_finish()
    except KeyboardInterrupt:
        if result is not None:
            result.cancel()
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        said = re.findall(r"\bUserError: (.*?)(?: \[while running .*)?$", text, re.MULTILINE)
        if not said:
            raise
        raise UserError(said[-1]) from None
    if state != "DONE":
        raise UserError(f"the pipeline ended as {state}: Beam's log says why; run the same command again")


def _build(pipeline: beam.Pipeline, found: Sequence[Source], field: str, folder: str) -> None:
    """Everything from the sources to joined files in `folder` and their `summary`."""
    versions = _versions()
    numbered = pipeline | "sources" >> beam.Create(list(enumerate(found))) | "apart" >> beam.Reshuffle()
    described = numbered | "hash" >> beam.Map(_describe)
    encoded = (
        numbered
        | "read" >> beam.FlatMap(_read, field, parts.CHUNK)
        | "spread" >> beam.Reshuffle()
        | "encode" >> beam.Map(_encode, versions)
    )
    bounds = encoded | "sample" >> beam.Map(_sample, SAMPLE) | "candidates" >> beam.CombineGlobally(_union)
    bounds = bounds | "bounds" >> beam.Map(_bounds, RANGE)
    merged = (
        encoded
        | "cut" >> beam.FlatMap(_cut, beam.pvalue.AsSingleton(bounds))
        | "ranges" >> beam.GroupByKey()
        | "merge" >> beam.FlatMap(_merge, folder).with_outputs("ranges", main="ranks")
    )
    ranges = beam.pvalue.AsList(merged.ranges)
    written = (
        {"part": encoded, "ranks": merged.ranks}
        | "meet" >> beam.CoGroupByKey()
        | "number" >> beam.Map(_number, ranges, folder)
    )
    written = beam.pvalue.AsList(written)
    joined = (
        pipeline
        | "files" >> beam.Create(corpus.FILES)
        | "each" >> beam.Reshuffle()
        | "join" >> beam.Map(_join, written, ranges, folder)
    )
    _ = (
        pipeline
        | "end" >> beam.Create([f"{folder}/summary"])
        | "sum" >> beam.Map(_sum, written, ranges, beam.pvalue.AsList(described), beam.pvalue.AsDict(joined))
    )


def _versions() -> dict[str, str]:
    return {"jaxdistill": jaxdistill.__version__, "tokenizers": tokenizers.__version__}


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _describe(item):
    number, source = item
    return number, describe(source)


def _read(item, field: str, size: int):
    """The chunks of a source, each with its place among all chunks."""
    number, source = item
    for chunk in parts.split_chunks(parts.Reading([source], [{}], field), size):
        yield number << 32 | chunk.number, chunk.pieces


def _encode(item, versions: dict[str, str]):
    here = _versions()
    if here != versions:
        raise UserError(
            f"a worker has {_listed(here)}, this machine {_listed(versions)}: install the same versions there"
        )
    number, pieces = item
    return number, words.encode(pieces)


def _sample(item, share: int):
    _, part = item
    return {word for word in part.words if zlib.crc32(word.encode()) % share == 0}


def _union(sets):
    return set().union(*sets)


def _bounds(candidates, step: int):
    return sorted(candidates)[step::step]


def _cut(item, bounds):
    """A part's words with their counts, cut into the ranges of the lexicon."""
    number, part = item
    counts = np.bincount(part.ids, minlength=len(part.words))
    edges = [0, *(bisect_left(part.words, bound) for bound in bounds), len(part.words)]
    for place, (start, end) in enumerate(itertools.pairwise(edges)):
        if start < end:
            yield place, (number, part.words[start:end], counts[start:end])


def _merge(item, folder: str):
    """Merges the words of one range; yields the range itself, and for each part the ranks of its words in the range."""
    place, runs = item
    total = collections.Counter()
    for _, entries, counts in runs:
        for word, count in zip(entries, counts.tolist(), strict=True):
            total[word] += count
    merged = sorted(total)
    rank = {word: number for number, word in enumerate(merged)}
    entries, *_ = beam_files.write_new(f"{folder}/words", ["".join(f"{word}\n" for word in merged).encode()])
    counts, *_ = beam_files.write_new(f"{folder}/counts", [np.array([total[word] for word in merged], "<i8").tobytes()])
    yield beam.pvalue.TaggedOutput("ranges", (place, len(merged), entries, counts))
    for number, entries, _ in runs:
        yield number, (place, np.fromiter(map(rank.__getitem__, entries), "<u4", len(entries)))


def _number(item, ranges, folder: str) -> _Written:
    """Writes a part as ids of the lexicon, and after them where its documents start."""
    number, group = item
    [part] = group["part"]
    places, sizes, *_ = zip(*sorted(ranges), strict=True)
    before = dict(zip(places, itertools.accumulate(sizes, initial=0), strict=False))
    ranks = [ranks + before[place] for place, ranks in sorted(group["ranks"], key=operator.itemgetter(0))]
    ids = np.concatenate(ranks)[part.ids]
    path, *_ = beam_files.write_new(
        f"{folder}/part", [ids.astype("<u4").tobytes(), part.documents.astype("<i8").tobytes()]
    )
    return _Written(number, len(ids), len(part.documents), (part.lines, part.leading, part.trailing), path)


def _join(name: str, written, ranges, folder: str):
    """Writes one file of the corpus; returns its name, and its path, size and SHA-256."""
    return name, beam_files.write_new(f"{folder}/{name}", _blocks(name, _in_order(written), sorted(ranges)))


def _in_order(written: Iterable[_Written]) -> list[_Written]:
    return sorted(written, key=operator.attrgetter("number"))


def _blocks(name: str, written: Sequence[_Written], ranges: Sequence[tuple]) -> Iterator[bytes]:
    if name == corpus.WORDS:
        for part in written:
            yield from beam_files.read_blocks(part.path, 4 * part.words)
    elif name == corpus.DOCUMENTS:
        yield from _documents(written)
    elif name == lexicon.WORDS:
        for _, _, path, _ in ranges:
            yield from beam_files.read_blocks(path)
    else:
        yield lexicon.header(sum(size for _, size, *_ in ranges))
        for *_, path in ranges:
            yield from beam_files.read_blocks(path)


def _documents(written: Sequence[_Written]) -> Iterator[bytes]:
    tally = corpus.Tally()
    seams = [(tally.words, tally.add(part.words, part.starts, part.structure)) for part in written]
    yield lexicon.header(tally.documents + 1)
    for part, (before, opens) in zip(written, seams, strict=True):
        with beam_files.open_file(part.path) as file:
            file.seek(4 * part.words)
            starts = np.frombuffer(file.read(8 * part.starts), "<i8")
        yield (np.concatenate([np.zeros(int(opens), "<i8"), starts]) + before).astype("<i8").tobytes()
    yield np.array([tally.words], "<i8").tobytes()


def _sum(path: str, written, ranges, described, joined) -> None:
    tally = corpus.Tally()
    for part in _in_order(written):
        tally.add(part.words, part.starts, part.structure)
    about = [entry for _, entry in sorted(described, key=operator.itemgetter(0))]
    made = {"sources": about, "counts": tally.counts(sum(size for _, size, *_ in ranges)), "files": joined}
    with beam_files.create_file(path) as file:
        file.write(json.dumps(made).encode())
