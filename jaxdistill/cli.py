"""The command line: `jaxdistill COMMAND`, one for each stage."""

import argparse
import dataclasses
import functools
import os
import pathlib
import sys
from collections.abc import Sequence

import jaxdistill
from jaxdistill import cli_plan, cli_runs, cli_tasks, member, parent, signals
from jaxdistill.cli_tasks import at_least
from jaxdistill.errors import UserError
from jaxdistill.usage import COMPARE, STAGES

_OF_CONFIGS = {"train": cli_runs.train, "cache": cli_runs.cache, "finetune": cli_runs.finetune, "plan": cli_plan.plan}
"""Commands whose options are a config's knobs."""
_OF_SEVERAL = ("train", "finetune", "cache", "evaluate")
"""Commands that several processes can share."""


def _prepare(options: argparse.Namespace) -> None:
    kind, _, runner = options.runner.partition(":")
    if kind == "beam":
        from jaxdistill.data import beam

        if options.workers:
            raise UserError("--workers counts processes of this machine: say how many workers by Beam's options")
        manifest = beam.prepare(
            options.sources, options.out, field=options.field, runner=runner or beam.HERE, options=options.rest
        )
    elif options.runner == "local":
        from jaxdistill.data.corpus import prepare

        manifest = prepare(options.sources, options.out, workers=options.workers, field=options.field)
    else:
        raise UserError(f"--runner {options.runner}: give local, beam, or beam:RUNNER as beam:DataflowRunner")
    made = manifest["counts"]
    print(
        f"{options.out}: {made['words']:,} words of {made['types']:,} kinds in {made['documents']:,} documents; next: "
        f"jaxdistill vocab {options.out} --out vocab.txt"
    )


def _check_replaceable(out: str) -> None:
    """Raises UserError where a vocabulary can't be written, or would replace anything but an older vocabulary."""
    from jaxdistill.data.vocab import read_vocabulary
    from jaxdistill.files import check_writable

    check_writable(out if out.endswith(".txt") else os.path.join(out, "vocab.txt"))
    if not os.path.exists(out) or (os.path.isdir(out) and not os.listdir(out)):
        return
    try:
        read_vocabulary(out)
    except UserError as error:
        raise UserError(f"{out} is there already and is no vocabulary ({error}): choose another --out") from None


def _vocab(options: argparse.Namespace) -> None:
    from jaxdistill.data.corpus import open_corpus
    from jaxdistill.data.vocab import read_vocabulary, write_tokenizer
    from jaxdistill.data.wordpiece import learn_vocabulary
    from jaxdistill.files import write_text
    from jaxdistill.hf import find_tokenizer
    from jaxdistill.report import vocabulary_table

    lexicons = {"the corpus": open_corpus(options.corpus).lexicon}
    if options.held_out:
        lexicons["held out"] = open_corpus(options.held_out).lexicon
    teacher = options.teacher
    if teacher:
        teacher = read_vocabulary(teacher if os.path.exists(teacher) else find_tokenizer(teacher))
    _check_replaceable(options.out)
    made = learn_vocabulary(
        lexicons["the corpus"], options.size, lowercase=not options.cased, coverage=options.coverage
    )
    if options.out.endswith(".txt"):
        write_text(options.out, "".join(piece + "\n" for piece in made.pieces))
    else:
        write_tokenizer(made, options.out, options.max_length)
    rows = {options.out: made}
    if options.compare:
        from jaxdistill.data.trainers import train_alike

        rows["WordPiece trainer of tokenizers"] = train_alike(lexicons["the corpus"], made)
    rows |= {"the teacher's own": teacher} if teacher else {}
    print(vocabulary_table(rows, lexicons, teacher))


def _compare(options: argparse.Namespace) -> None:
    from jaxdistill.compare import compare
    from jaxdistill.report import check_comparison_files, comparison_table, write_comparison

    if options.out:
        check_comparison_files(options.out)
    made = compare(options.models, options.corpus)
    print(comparison_table(made))
    if options.out:
        print(f"{options.out}: {', '.join(write_comparison(made, options.out))}")


def _bench(options: argparse.Namespace) -> None:
    from jaxdistill import picture
    from jaxdistill.bench import bench
    from jaxdistill.files import check_writable, write_json
    from jaxdistill.report import bench_picture, bench_table

    drawn = None if options.picture is None else pathlib.Path(options.picture)
    if options.json:
        check_writable(options.json)
    if drawn:
        picture.check(drawn)
    asked = {name: getattr(options, name) for name in ("length", "rows", "rounds")}
    made = bench(options.models, **asked, scored=drawn is not None)
    print(bench_table(made))
    if options.json:
        write_json(options.json, dataclasses.asdict(made))
    if drawn:
        picture.save(bench_picture(made), drawn)


def _export(options: argparse.Namespace) -> None:
    from jaxdistill.export import export

    asked = {name: getattr(options, name) for name in ("role", "step", "positions", "dtype", "replace")}
    export(options.run, options.out, **asked)


def _fill(options: argparse.Namespace) -> None:
    from jaxdistill.export import read_model
    from jaxdistill.fill import fill

    for found in fill(read_model(options.model, options.role), options.text, options.top):
        print("  ".join(f"{piece} {probability:.1%}" for piece, probability in found))


def _quickstart(options: argparse.Namespace) -> None:
    from jaxdistill.quickstart import quickstart

    quickstart(options.workdir, text=options.text, teacher=options.teacher or "", scale=options.scale)


def _env(options: argparse.Namespace) -> None:
    import platform

    from jaxdistill.versions import PACKAGES, version

    print(f"jaxdistill {jaxdistill.__version__}")
    print(f"python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores")
    for name in (*PACKAGES, "transformers", "torch"):
        print(f"{name} {version(name) or 'is not installed'}")
    import jax

    try:
        print(f"devices: {', '.join(f'{device.platform} {device.device_kind}' for device in jax.devices())}")
    except RuntimeError as error:
        print(f"devices: none could be used ({error})")


def _parser() -> argparse.ArgumentParser:
    shape = functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=28, width=110)
    parser = argparse.ArgumentParser(
        "jaxdistill",
        description="Distil BERT-family models into very small ones.",
        epilog=STAGES,
        formatter_class=shape,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"jaxdistill {jaxdistill.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name, function, meaning):
        made = commands.add_parser(name, help=meaning, description=meaning, formatter_class=shape, allow_abbrev=False)
        made.set_defaults(function=function)
        return made

    def run_model(made):
        made.add_argument("--role", help="which model of a run: student (default, or the only one), or teacher")

    made = command("quickstart", _quickstart, "Distil a small model from end to end, offline, in minutes.")
    made.add_argument("--workdir", default="quickstart", help="where everything goes (default quickstart)")
    made.add_argument("--text", nargs="+", default=(), metavar="FILE", help="your own text instead of documentation")
    made.add_argument("--teacher", help="a BERT folder or hub id instead of a teacher trained on the spot")
    made.add_argument("--scale", type=float, default=1.0, help="multiplies the training steps (default 1: minutes)")

    made = command("prepare", _prepare, "Turn text into a corpus: word ids and a lexicon.")
    made.add_argument("sources", nargs="+", metavar="FILE", help=".txt, .txt.gz, .jsonl, .parquet, hf:NAME, tfds:NAME")
    made.add_argument("--out", required=True, metavar="CORPUS", help="the folder to make")
    made.add_argument("--workers", type=at_least(1), help="processes (default: one for each core)")
    made.add_argument("--field", default="text", help="the field of a row that holds the text (default text)")
    made.add_argument(
        "--runner",
        default="local",
        help="local (default); beam, or beam:RUNNER as beam:DataflowRunner: an Apache Beam pipeline, its options last",
    )

    made = command("vocab", _vocab, "Learn a vocabulary of WordPieces from a corpus's word counts.")
    made.add_argument("corpus", metavar="CORPUS", help="a folder that prepare made")
    made.add_argument("--size", type=at_least(1), default=4928, help="pieces, specials included (default 4928)")
    made.add_argument("--out", required=True, help="a vocab.txt, or a folder for all tokenizer files")
    made.add_argument(
        "--coverage",
        type=float,
        default=0.9995,
        help="share of the words that must not become [UNK]: the rarest characters get no piece (default 0.9995)",
    )
    made.add_argument("--cased", action="store_true", help="keep case and accents (default: uncased)")
    made.add_argument("--held-out", metavar="CORPUS", help="also measure it on this corpus")
    made.add_argument("--teacher", help="a vocab.txt, model folder or hub id: report the share of pieces in common")
    made.add_argument("--compare", action="store_true", help="measure the trainer of `tokenizers` beside it (slower)")
    made.add_argument(
        "--max-length", type=at_least(3), default=512, help="model_max_length of the tokenizer (default 512)"
    )

    commands.add_parser("train", help="Train a config in a workdir; run again to continue.", add_help=False)
    commands.add_parser("finetune", help="Train a config of a task over seeds, and over a grid.", add_help=False)
    commands.add_parser("plan", help="What a run would take on other hardware: bytes, hours, money.", add_help=False)
    commands.add_parser("cache", help="Compute once what a teacher that does not train computes.", add_help=False)

    cli_tasks.add_commands(command)

    made = command("compare", _compare, "Runs and model folders side by side: one table and one picture.")
    made.epilog = COMPARE
    made.add_argument("models", nargs="+", metavar="RUN", help="a run's workdir, a model folder or a hub id")
    made.add_argument("--corpus", metavar="HELD_OUT", help="prepared text that no model was trained on: score all now")
    made.add_argument("--out", metavar="FOLDER", help="also write compare.json, .md, .png and .svg there")

    made = command("bench", _bench, "Size and speed of any models, fine-tuned ones too, as ratios to the largest.")
    made.add_argument("models", nargs="+", metavar="MODEL", help="a run's workdir, a model folder or a hub id")
    made.add_argument(
        "--length", type=at_least(1), default=0, help="pieces in a row (default 128, or the fewest positions)"
    )
    made.add_argument("--rows", type=at_least(1), default=32, help="rows of a batch (default 32)")
    made.add_argument("--rounds", type=at_least(1), default=20, help="in which the models take turns (default 20)")
    made.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    made.add_argument("--picture", metavar="FILE", help="draw the runs' scores against size: a .png or .svg")

    made = command("export", _export, "Write a run's model as a Hugging Face folder.")
    made.add_argument("run", metavar="RUN", help="the run's workdir, finished or not")
    made.add_argument("--out", required=True, metavar="FOLDER", help="the folder to write")
    made.add_argument("--step", type=at_least(0), help="which checkpoint (default: the newest)")
    made.add_argument(
        "--positions", type=at_least(1), help="more than it has, as copies, to train further on longer texts"
    )
    made.add_argument("--dtype", default="float32", choices=("float32", "float16"), help="type of the weights")
    made.add_argument("--replace", action="store_true", help="replace a folder that is no export of ours")
    run_model(made)

    made = command("fill", _fill, "Fill in [MASK].")
    made.add_argument("model", metavar="FOLDER", help="a model folder, a hub id or a run's workdir")
    made.add_argument("text", help='such as "The capital of [MASK] is Rome."')
    made.add_argument("--top", type=at_least(1), default=5, help="pieces to show for each mask (default 5)")
    run_model(made)

    command("env", _env, "Versions and devices, for bug reports.")
    return parser


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads a command line; `rest` is what Beam may know when `prepare` runs there, elsewhere it must be empty."""
    parser = _parser()
    options, options.rest = parser.parse_known_args(arguments)
    if options.rest and getattr(options, "runner", "local") == "local":
        parser.error(f"unrecognized arguments: {' '.join(options.rest)}")
    return options


def run(arguments: Sequence[str]) -> None:
    """Runs a command in this process; raises UserError for bad input."""
    with signals.interruptible_imports():
        if arguments[:1] and arguments[0] in _OF_CONFIGS:
            _OF_CONFIGS[arguments[0]](arguments[1:])
        else:
            options = _parse(arguments)
            cli_runs.check_places(vars(options))
            options.function(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; the exit code is 0, 2 for bad input, 130 for an interrupt, 141 when nobody reads the output.

    One that SIGTERM stopped, and that saved, exits with 143.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments[:1] and arguments[0] in _OF_SEVERAL:
            one, arguments = member.asked(arguments, os.environ)
            if one is not None:
                return parent.run(one, arguments)
        run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it exits, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (UserError, OSError) as error:
        print(f"jaxdistill: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(signals.INTERRUPTED, file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
