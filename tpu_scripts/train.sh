#!/usr/bin/env bash
# Starts `jaxdistill train` on all workers, with the run in BUCKET/runs/NAME; it goes on when the connection ends.
#   tpu_scripts/train.sh CONFIG KNOBS...     such as extreme --corpus data/corpus --variant up
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ $# -gt 0 ]] || die "name a config and its knobs, as for jaxdistill train"
need_slice

command=(jaxdistill/bin/jaxdistill train "$@" --workdir "$RUN" --coordinator auto --wait 600)
remote all "bash job.sh start $(quoted "${command[@]}")"
