#!/usr/bin/env bash
# Sees to it that a run ends: asks for the slice, installs, trains, and does it again after a preemption or a crash.
# Leave it running on a machine that stays on; killed and started again, it goes on from what it finds.
#   tpu_scripts/resume.sh CONFIG KNOBS...     the arguments of train.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_slice
training "$@"
LIMIT=${LIMIT:-5} # failures between two preemptions, after which it gives up
need_number LIMIT

if [[ -n ${DRY_RUN:-} ]]; then
  ask_state
  remove
  request
  wait_active
  "$HERE/install.sh"
  "$HERE/train.sh" "$@"
  exit
fi

failures=0
failed() { # WHAT...: counts a failure, and gives up after too many
  failures=$((failures + 1))
  say "$* (failure $failures of at most $LIMIT)"
  [[ $failures -lt $LIMIT ]] || die "gave up; the slice $NAME may still be there and cost money: tpu_scripts/delete.sh"
}

jobs_now() { # prints what this command's jobs on the workers are: running, absent, done, stopped: CODE; other; unknown
  local said asked
  asked=$(quoted jaxdistill/bin/jaxdistill "${arguments[@]}")
  said=$(remote all "if test -e job.sh; then bash job.sh status $asked; else echo absent; fi" 2>/dev/null) || said=unknown
  local kind
  for kind in unknown other running absent "done"; do
    if grep -qx "$kind" <<<"$said"; then
      echo "$kind"
      return
    fi
  done
  sort -u <<<"$said" | paste -sd ' '
}

last=
while true; do
  now=$(state)
  answered "$now"
  [[ $now != ACTIVE ]] || now="ACTIVE, its job $(jobs_now)"
  [[ $now == "$last" ]] || say "$NAME is $now"
  last=$now
  case $now in
    ABSENT) request || failed "the request was refused" ;;
    SUSPENDED)
      failures=0
      remove || true
      ;;
    FAILED)
      failed "the request failed"
      remove || true
      ;;
    *"job other") die "another command runs on $NAME: wait for its end, or give this one another NAME" ;;
    *"job absent")
      if "$HERE/install.sh"; then
        "$HERE/train.sh" "$@" || failed "the job could not be started"
      else
        failed "jaxdistill could not be installed"
      fi
      ;;
    *"job done")
      say "$RUN is finished; tpu_scripts/delete.sh ends the costs"
      exit 0
      ;;
    *"job stopped"*)
      remote 0 "tail -n 5 train.log" >&2 || true
      failed "the job stopped before its end"
      "$HERE/train.sh" "$@" || failed "the job could not be started"
      ;;
  esac
  sleep "$POLL"
done
