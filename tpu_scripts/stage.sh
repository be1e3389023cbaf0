#!/usr/bin/env bash
# Copies files and folders to BUCKET/data, each under its own name: a corpus, a vocabulary, a teacher.
#   tpu_scripts/stage.sh corpus vocab.txt teacher
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ $# -gt 0 ]] || die "name the files and folders to copy to BUCKET/data"
need_slice

seen=/
for path in "$@"; do
  name=$(basename -- "$path")
  [[ -e $path ]] || die "$path is not there"
  [[ $name != [/.] && $name != .. ]] || die "$path has no name to go by: write it out"
  [[ $seen != */"$name"/* ]] || die "two of them are called $name"
  seen+=$name/
done
for path in "$@"; do
  name=$(basename -- "$path")
  if [[ -d $path ]]; then
    run gcloud storage rsync "$path" "$BUCKET/data/$name" --recursive
  else
    run gcloud storage cp "$path" "$BUCKET/data/$name"
  fi
done
