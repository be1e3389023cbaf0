#!/usr/bin/env bash
# Asks for a TPU slice by a queued resource, and waits until it is there. Run again, it goes on waiting.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ $# == 0 ]] || die "takes no arguments: the settings are in $SETTINGS"
need_slice

if [[ -n ${DRY_RUN:-} ]]; then
  request
else
  now=$(state)
  case $now in
    ABSENT) request ;;
    FAILED | SUSPENDED) die "$NAME is $now: tpu_scripts/delete.sh first, or tpu_scripts/resume.sh" ;;
  esac
fi
wait_active ||
  die "$NAME will not become active: gcloud compute tpus queued-resources describe $NAME --project=$PROJECT --zone=$ZONE says why"
