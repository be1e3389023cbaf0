#!/usr/bin/env bash
# Installs jaxdistill on all workers, and copies BUCKET/data to `data` in their home folders.
#   tpu_scripts/install.sh [WHEEL]     without a wheel, one is built from this checkout
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ $# -le 1 ]] || die "takes one wheel, or none"
need_slice

wheel=${1:-}
if [[ -z $wheel ]]; then
  wheel=$ROOT/dist/$WHEEL
  run rm -rf "$ROOT/build/lib" # setuptools would pack what an older build left there
  run python3 -m pip wheel --quiet --no-deps --wheel-dir "$ROOT/dist" "$ROOT"
fi
[[ -n ${DRY_RUN:-} || -f $wheel ]] || die "$wheel is not there"
run gcloud compute tpus tpu-vm scp "$wheel" "$HERE/job.sh" "$NAME:" --project="$PROJECT" --zone="$ZONE" --worker=all
# The images' own Python is 3.10.
remote all "python3 -m pip install --quiet --user uv &&\
 .local/bin/uv venv --quiet --clear --python 3.12 jaxdistill &&\
 .local/bin/uv pip install --quiet --python jaxdistill/bin/python $(quoted "./$(basename "$wheel")[tpu,gcs]") &&\
 mkdir -p data && gcloud storage rsync $BUCKET/data data --recursive"
