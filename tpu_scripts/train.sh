#!/usr/bin/env bash
# Starts `jaxdistill train` on all workers, with the run in BUCKET/runs/NAME; it goes on when the connection ends.
#   tpu_scripts/train.sh CONFIG KNOBS...     such as extreme --corpus data/corpus --variant up
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_slice
training "$@"

remote all "bash job.sh start $(quoted jaxdistill/bin/jaxdistill "${arguments[@]}")"
