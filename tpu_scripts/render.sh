#!/usr/bin/env bash
# Prints a manifest for GKE or SkyPilot with the settings and a training command filled in.
#   tpu_scripts/render.sh jobset.yaml|skypilot.yaml CONFIG KNOBS...
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ $# -gt 1 ]] || die "name jobset.yaml or skypilot.yaml, a config and its knobs"
need_slice
template=$1
shift
training "$@"
[[ ${arguments[*]} != *[[:cntrl:]]* ]] || die "an argument has a line break or another control character in it"

json() { # WORD...: a JSON list, which is YAML too
  local word line=""
  for word in "$@"; do
    word=${word//\\/\\\\}
    word=${word//\"/\\\"}
    line+="${line:+, }\"$word\""
  done
  printf '[%s]' "$line"
}

# shellcheck disable=SC2034 # They are read by name, below.
case $template in
  jobset.yaml)
    need IMAGE QUEUE GKE_ACCELERATOR GKE_TOPOLOGY
    need_number GKE_HOSTS GKE_CHIPS
    names=(NAME QUEUE IMAGE BUCKET GKE_ACCELERATOR GKE_TOPOLOGY GKE_HOSTS GKE_CHIPS GKE_CAPACITY ARGUMENTS)
    case $PROVISIONING in
      spot) GKE_CAPACITY='cloud.google.com/gke-spot: "true"' ;;
      *) GKE_CAPACITY="# $PROVISIONING: by the node pool" ;;
    esac
    ARGUMENTS=$(json "${arguments[@]}")
    ;;
  skypilot.yaml)
    names=(NAME ZONE BUCKET ACCELERATOR_TYPE RUNTIME_VERSION SKY_SPOT WHEEL COMMAND)
    [[ $PROVISIONING != reserved ]] || die "PROVISIONING is reserved: choose spot or on-demand for SkyPilot"
    SKY_SPOT=$([[ $PROVISIONING == spot ]] && echo true || echo false)
    COMMAND=$(quoted jaxdistill/bin/jaxdistill "${arguments[@]}")
    ;;
  *) die "$template is neither jobset.yaml nor skypilot.yaml" ;;
esac

text=$(<"$HERE/$template")
for name in "${names[@]}"; do
  pattern="\${$name}"
  text=${text//"$pattern"/"${!name}"}
done
printf '%s\n' "$text"
