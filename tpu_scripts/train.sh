#!/usr/bin/env bash
# Starts `jaxdistill train` on all workers; it goes on when the connection ends. Run again later, it continues.
#   tpu_scripts/train.sh CONFIG KNOBS...     such as extreme --corpus data/corpus --variant up
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ $# -gt 0 ]] || die "name a config and its knobs, as for jaxdistill train; --workdir and --coordinator are added"
need_slice

remote all "bash job.sh start $(quoted jaxdistill/bin/jaxdistill train "$@" --workdir "$RUN" --coordinator auto)"
