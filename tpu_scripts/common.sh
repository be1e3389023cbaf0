# shellcheck shell=bash
# What the scripts share: the settings, the dry run, and the slice.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
# shellcheck disable=SC2034
WHEEL=jaxdistill-$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$ROOT/jaxdistill/__init__.py")-py3-none-any.whl
SETTINGS=${SETTINGS:-$HERE/settings.sh}
# shellcheck source=settings.sh
source "$SETTINGS"
POLL=${POLL:-60} # seconds between two looks
LOST=${LOST:-30} # looks without an answer, after which it gives up
[[ ${DRY_RUN:-} != 0 ]] || DRY_RUN=

say() { echo "${0##*/}: $*" >&2; }
die() {
  say "$@"
  exit 2
}

need() { # SETTING...: dies unless each is there and holds nothing that a resource name or YAML would choke on
  local name
  for name in "$@"; do
    [[ -n ${!name:-} ]] || die "$name is not set: fill it in in $SETTINGS, or set it in the environment"
    [[ ${!name} =~ ^[A-Za-z0-9_./:@][A-Za-z0-9_./:@-]*$ ]] ||
      die "$name is '${!name}': only letters, digits and _ . / : @ - are allowed, and no - first"
  done
}

need_number() { # SETTING...: dies unless each is a number above 0
  local name
  for name in "$@"; do
    [[ ${!name:-} =~ ^[1-9][0-9]*$ ]] || die "$name is '${!name:-}': give a number above 0"
  done
}

need_slice() { # dies unless the settings of a slice are in order
  need PROJECT ZONE NAME BUCKET ACCELERATOR_TYPE RUNTIME_VERSION PROVISIONING
  [[ $NAME =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] ||
    die "NAME is '$NAME': at most 40 of a-z, 0-9 and -, a letter first and no - last"
  [[ $BUCKET =~ ^gs://[a-z0-9] && $BUCKET != */ ]] || die "BUCKET is '$BUCKET': write gs://NAME, without a / at the end"
  [[ $PROVISIONING =~ ^(spot|reserved|on-demand)$ ]] ||
    die "PROVISIONING is '$PROVISIONING': choose spot, reserved or on-demand"
  need_number LOST
  [[ -n ${DRY_RUN:-} || ${0##*/} == render.sh ]] || command -v gcloud >/dev/null ||
    die "gcloud is not installed: https://cloud.google.com/sdk/docs/install"
  RUN=$BUCKET/runs/$NAME
}

training() { # CONFIG KNOBS...: sets `arguments` to those of jaxdistill on each worker
  [[ $# -gt 0 ]] || die "name a config and its knobs, as for jaxdistill train"
  local word
  for word in "$@"; do
    case $word in
      --workdir | --workdir=* | --coordinator | --coordinator=* | --wait | --wait=*)
        die "leave ${word%%=*} out: the run is in $RUN, and the workers find each other"
        ;;
    esac
  done
  # shellcheck disable=SC2034
  arguments=(train "$@" --workdir "$RUN" --coordinator auto --wait 600)
}

quoted() { # WORD...: one line that a shell reads as these words
  local word quote="'\"'\"'" line="" LC_ALL=C
  for word in "$@"; do
    if [[ ! $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
      word=${word//\'/"$quote"}
      word="'$word'"
    fi
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

run() { # COMMAND...: runs it, or prints it when DRY_RUN is set
  if [[ -n ${DRY_RUN:-} ]]; then quoted "$@"; else "$@"; fi
}

remote() { # WORKERS COMMAND: runs a shell command on workers of the slice, in the home folder
  run gcloud compute tpus tpu-vm ssh "$NAME" --project="$PROJECT" --zone="$ZONE" --worker="$1" --command="$2"
}

request() { # asks for the slice
  local capacity=()
  [[ $PROVISIONING == on-demand ]] || capacity=("--$PROVISIONING")
  run gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --project="$PROJECT" --zone="$ZONE" \
    --accelerator-type="$ACCELERATOR_TYPE" --runtime-version="$RUNTIME_VERSION" ${capacity[@]+"${capacity[@]}"}
}

remove() { # deletes the queued resource and the TPU that it may have
  run gcloud compute tpus queued-resources delete "$NAME" --project="$PROJECT" --zone="$ZONE" --force --quiet
}

ask_state() {
  run gcloud compute tpus queued-resources describe "$NAME" --project="$PROJECT" --zone="$ZONE" \
    --format='value(state.state)'
}

state() { # prints the queued resource's state; ABSENT when there is none, UNKNOWN when no answer came
  local said errors
  errors=$(mktemp)
  if said=$(ask_state 2>"$errors"); then
    echo "${said##*$'\n'}"
  elif grep -q NOT_FOUND "$errors"; then
    echo ABSENT
  else
    cat "$errors" >&2
    echo UNKNOWN
  fi
  rm -f "$errors"
}

lost=0
answered() { # STATE: dies after too many looks without an answer
  if [[ $1 != UNKNOWN ]]; then
    lost=0
    return
  fi
  lost=$((lost + 1))
  [[ $lost -lt $LOST ]] || die "gave up after $lost looks without an answer; the slice $NAME may be there and cost money"
}

wait_active() { # returns once the slice is there, or 1 once it will not be
  local now last=
  if [[ -n ${DRY_RUN:-} ]]; then
    ask_state
    return
  fi
  while true; do
    now=$(state)
    answered "$now"
    [[ $now == "$last" ]] || say "$NAME is $now"
    last=$now
    case $now in
      ACTIVE) return 0 ;;
      FAILED | SUSPENDED | ABSENT) return 1 ;;
    esac
    sleep "$POLL"
  done
}
