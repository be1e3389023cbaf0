"""Text to words beside the `tokenizers` library: speed per core and peak memory, one table from one run.

The contestants alternate on the same text, each in a process of its own: `prepare`, which also writes lexicon and
ids to disk, and the library's own BertNormalizer and BertPreTokenizer over every line, which keeps nothing.

  python benchmarks/prepare.py wiki.txt.gz --megabytes 50 200 --workers 1 2
"""

import argparse
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

from jaxdistill.data.corpus import prepare
from jaxdistill.data.sources import find_source, read

PERIOD = 0.05


def pretokenize(path: str) -> None:
    """The library's own pass over whole lines."""
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalizer = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False)
    pre_tokenizer = BertPreTokenizer()
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(line))


def family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    try:
        for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from family(int(child))
    except OSError:
        return


def resident(pid: int) -> int:
    """Resident bytes; 0 when the process has ended."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def measure(arguments: list[str]) -> tuple[float, float, float]:
    """Runs this file in a new process; returns seconds, CPU seconds and the peak resident bytes, children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, __file__, *arguments])
    ended, peak = threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(PERIOD):
            peak[0] = max(peak[0], sum(map(resident, family(process.pid))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - start
    ended.set()
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        sys.exit(f"{' '.join(arguments)} failed with exit code {code}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak[0]


def write_prefix(sources: list[str], field: str, megabytes: float, path: pathlib.Path) -> int:
    """Writes the first megabytes of the sources as plain text, up to the end of a line; returns the bytes."""
    left = int(megabytes * 1e6)
    with open(path, "wb") as file:
        for spec in sources:
            for block, _ in read(find_source(spec), field):
                cut = block if left > len(block) else block[: block.rfind(b"\n", 0, left) + 1]
                file.write(cut)
                left -= len(block)
                if left <= 0:
                    return file.tell()
    return path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help="text: whatever `prepare` reads")
    parser.add_argument("--field", default="text", help="the field of a row that holds its text (default: text)")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[50], help="text to read, one table row each")
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="processes of prepare, one table row each")
    parser.add_argument("--rounds", type=int, default=3, help="times that every contestant runs; medians are printed")
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        kind, path, *rest = options.only
        if kind == "tokenizers":
            pretokenize(path)
        else:
            prepare([path], rest[0], workers=int(rest[1]))
        return
    if not options.sources:
        parser.error("name at least one file")

    rows: dict[tuple, list] = {}
    with tempfile.TemporaryDirectory() as folder:
        for megabytes in options.megabytes:
            path = pathlib.Path(folder, f"{megabytes:g}.txt")
            size = write_prefix(options.sources, options.field, megabytes, path) / 1e6
            for number in range(options.rounds):
                for workers in options.workers:
                    out = f"{folder}/{megabytes:g}-{workers}-{number}"
                    arguments = ["--only", "prepare", str(path), out, str(workers)]
                    rows.setdefault((f"prepare, workers {workers}", size), []).append(measure(arguments))
                arguments = ["--only", "tokenizers", str(path)]
                rows.setdefault(("tokenizers, 1 process", size), []).append(measure(arguments))

    print(f"{'contestant':24}{'MB':>8}{'s':>9}{'CPU s':>9}{'MB/s':>9}{'MB/s per CPU s':>16}{'peak MB':>10}")
    for (name, size), results in rows.items():
        seconds, cpu, peak = map(statistics.median, zip(*results, strict=True))
        print(f"{name:24}{size:8.1f}{seconds:9.2f}{cpu:9.2f}{size / seconds:9.2f}{size / cpu:16.2f}{peak / 1e6:10.0f}")


if __name__ == "__main__":
    main()
