#!/usr/bin/env bash
# Deletes the queued resource and its TPU, which ends their costs. What is in the bucket stays, and costs storage.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ $# == 0 ]] || die "takes no arguments: the settings are in $SETTINGS"
need_slice
remove
