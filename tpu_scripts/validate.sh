#!/usr/bin/env bash
# Checks what the scripts make with the parsers of kubernetes, skypilot and, where it is installed, gcloud. They get an
# environment of their own: beside jaxdistill's packages pip would take an old skypilot.
#   tpu_scripts/validate.sh [FOLDER]     keeps the environment there, for the next time
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-$(mktemp -d)}
[[ $# -gt 0 ]] || trap 'rm -rf "$folder"' EXIT

export PIP_DISABLE_PIP_VERSION_CHECK=1 SKYPILOT_DISABLE_USAGE_COLLECTION=1
[[ -x $folder/bin/python ]] || python3 -m venv "$folder"
"$folder/bin/python" -m pip install --quiet 'kubernetes>=37,<38' 'skypilot>=0.14,<0.15'
mkdir -p "$folder/home"
HOME=$folder/home "$folder/bin/python" tpu_scripts/validate.py
