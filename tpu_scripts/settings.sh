# shellcheck shell=bash disable=SC2034
# The settings of one job. Fill them in here, or set them in the environment, which wins. A second job has a second
# file like this one: SETTINGS=second.sh tpu_scripts/create.sh

: "${PROJECT:=}"                             # the Google Cloud project
: "${ZONE:=}"                                # where the chips are, such as us-west4-a
: "${NAME:=}"                                # of the job, its TPU and its run: a-z, 0-9 and -
: "${BUCKET:=}"                              # gs://... in the region of the zone; data and runs are kept there
: "${ACCELERATOR_TYPE:=v5litepod-32}"        # v5litepod-32, v6e-8, v4-32, ...
: "${RUNTIME_VERSION:=v2-alpha-tpuv5-lite}"  # v5e; v6e: v2-alpha-tpuv6e, v5p: v2-alpha-tpuv5, v4: tpu-ubuntu2204-base
: "${PROVISIONING:=spot}"                    # spot, reserved, or on-demand

# For GKE alone.
: "${IMAGE:=}"                               # the container image, made from tpu_scripts/Dockerfile
: "${QUEUE:=}"                               # Kueue's LocalQueue
: "${GKE_ACCELERATOR:=tpu-v5-lite-podslice}" # v5e; tpu-v6e-slice, tpu-v5p-slice, tpu-v4-podslice
: "${GKE_TOPOLOGY:=4x8}"                     # chips along each axis: 32 of them
: "${GKE_HOSTS:=8}"                          # virtual machines of the slice
: "${GKE_CHIPS:=4}"                          # chips of each of them
