#!/usr/bin/env bash
# Shows the slice's state, the newest metrics, how each worker's job is, and the end of the first one's log.
#   watch -n 60 tpu_scripts/watch.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ $# == 0 ]] || die "takes no arguments: the settings are in $SETTINGS"
need_slice

ask_state || say "there is no slice"
run gcloud storage cat --range=-2000 "$RUN/metrics.jsonl" | tail -n 3 || say "no metrics yet"
remote all "bash job.sh status" || say "the workers cannot be asked now"
remote 0 "tail -n 20 train.log" || say "there is no log yet"
