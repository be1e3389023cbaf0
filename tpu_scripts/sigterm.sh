#!/usr/bin/env bash
# Runs a command and passes SIGTERM on. The command then saves and ends well; this ends with 143, so that Kubernetes and
# SkyPilot do not take the run for finished.
#   sigterm.sh COMMAND...
set -uo pipefail

terminated=0
"$@" &
child=$!
trap 'terminated=143; kill -TERM "$child"' TERM
wait "$child"
code=$?
while kill -0 "$child" 2>/dev/null; do # The trap ended `wait`, and the command still saves.
  wait "$child"
  code=$?
done
[[ $code == 0 ]] || exit "$code"
exit "$terminated"
