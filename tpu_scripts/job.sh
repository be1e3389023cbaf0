#!/usr/bin/env bash
# On a worker: starts a command that outlives the connection, and says how it is. install.sh brings it there.
#   job.sh start COMMAND...     its output goes to train.log, that of the start before to train.log.1
#   job.sh status [COMMAND...]  prints absent, running, other (another command runs), done, or stopped and the exit code
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

running() { ! flock --nonblock job.lock true; } # The lock goes with the last process of the job, whatever killed it.

case ${1:-} in
  start)
    shift
    if running; then
      echo "a job is running here already" >&2
      exit 1
    fi
    rm -f job.started job.exit
    printf '%s\0' "$@" >job.command
    if [[ -e train.log ]]; then mv train.log train.log.1; fi
    export PYTHONUNBUFFERED=1
    # shellcheck disable=SC2016 # The inner shell expands these.
    setsid flock --nonblock job.lock bash -c 'touch job.started; code=0; "$@" || code=$?; echo $code >job.exit' \
      job "$@" >train.log 2>&1 </dev/null &
    until [[ -e job.started ]]; do sleep 0.1; done
    ;;
  status)
    shift
    same=yes
    if [[ $# -gt 0 ]] && ! printf '%s\0' "$@" | cmp --silent - job.command; then same=; fi
    if running; then
      if [[ $same ]]; then echo running; else echo other; fi
    elif [[ ! $same || ! -e job.started ]]; then
      echo absent
    elif [[ ! -s job.exit ]]; then
      echo "stopped: killed"
    elif [[ $(<job.exit) == 0 ]]; then
      echo "done"
    else
      echo "stopped: $(<job.exit)"
    fi
    ;;
  *)
    echo "job.sh start COMMAND... | job.sh status [COMMAND...]" >&2
    exit 2
    ;;
esac
