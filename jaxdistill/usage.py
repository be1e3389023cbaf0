"""What the command line says of its commands."""

STAGES = """the stages:
  jaxdistill prepare FILE... --out CORPUS               text -> word ids and a lexicon
  jaxdistill vocab CORPUS --out vocab.txt               the student's WordPieces
  jaxdistill train extreme --workdir RUN --corpus CORPUS --vocabulary vocab.txt --teacher FOLDER_OR_HUB_ID
  jaxdistill evaluate RUN --corpus HELD_OUT             masked-word accuracy on text that was set aside
  jaxdistill compare RUN RUN ...                        accuracy, size, speed, training cost: a table and a picture
  jaxdistill bench RUN TEACHER                          size and speed side by side, and how many times better
  jaxdistill export RUN --out FOLDER                    a model that transformers loads
  jaxdistill fill FOLDER "A cup of [MASK]."             the likeliest pieces for each [MASK]
  jaxdistill finetune finetune --model FOLDER --task sst2 --seeds 5 --workdir RUNS
all of them at once, in minutes: jaxdistill quickstart"""

TRAIN = """usage: jaxdistill train CONFIG --workdir RUN [knobs]
       jaxdistill train CONFIG --help

Trains in a workdir, evaluates, and saves checkpoints. Run again, the same command continues, to the same bits.
CONFIG is a name, or the path of a Python file with a function `config` of your own. By name there are: {names}.
Its --help lists every knob with its default and meaning."""

FINETUNE = """usage: jaxdistill finetune CONFIG --workdir RUNS --seeds N [--grid KNOB=VALUE,VALUE ...] [knobs]
       jaxdistill finetune CONFIG --help

Trains a config of a task, such as finetune, pkd or tinybert_task, once for every seed and every setting of the grid,
and prints each setting's scores on the dev split over the seeds. Run again, it goes on where it was stopped.
  jaxdistill finetune finetune --model FOLDER --task sst2 --seeds 5 --workdir RUNS
  jaxdistill finetune finetune --model FOLDER --task rte --workdir RUNS --grid learning-rate=5e-5,2e-5 batch=16,32
CONFIG is as for `train`; by name there are: {names}."""

CACHE = """usage: jaxdistill cache CONFIG --out FOLDER [knobs]
       jaxdistill cache CONFIG --help

Computes once, for every window of the corpus, what a teacher that does not train computes at every step; then
`jaxdistill train CONFIG --cache FOLDER` with the same knobs reads it. The masks are the same in every epoch then.
Run again, it goes on where it was stopped. CONFIG is as for `train`; by name there are: {names}."""

PLAN = """usage: jaxdistill plan CONFIG --hardware NAME [--price-per-hour X] [knobs]
       jaxdistill plan CONFIG --compare [--price-per-hour NAME=X,NAME=X] [knobs]
       jaxdistill plan --calibrate
       jaxdistill plan CONFIG --help

Says what a run would take elsewhere: bytes on each device, seconds a step, hours, money. Nothing is trained. Corpus,
vocabulary and teacher need not be there: what is not named is supposed to be the paper's.
NAME is v2-N, v3-N, v4-N, v5p-N (N TensorCores, two a chip), v5e-N, v6e-N (N chips), a100-N, h100-N, h200-N or cpu-N
(N cores). --calibrate measures the device here once, and the plans of such devices go by it from then on.
CONFIG is as for `train`; by name there are: {names}."""

COMPARE = """what it shows:
  accuracy   the scores that the runs ended with, when all saw the same text, cut and masked alike; otherwise all are
             scored now, as the first run was, on the held-out text that the runs name, or on --corpus
  size       parameters, and megabytes as float32
  speed      milliseconds for one row, rows a second in batches, measured now on this machine, the models taking turns
  training   seconds of the steps, positions read, FLOP: of runs; a model folder does not say it
examples:
  jaxdistill compare RUN-A RUN-B --out COMPARED         the table, and COMPARED/compare.{json,md,png,svg}
  jaxdistill compare RUN FOLDER google-bert/bert-base-uncased --corpus HELD_OUT"""
