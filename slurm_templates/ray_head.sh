#!/bin/bash
# Ray on the first of a job's machines ({{ nodes }} in all). Stays in the foreground; the job ends it.
# The job sets LLMZERO_HEAD (this machine's address), LLMZERO_RAY_CPUS, LLMZERO_RAY_GPUS, LLMZERO_RAY_FOLDER (short, as
# sockets lie in it), LLMZERO_RAY_CLIENT_PORT (empty without grpcio), RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH.
# Every port but that one is chosen by Ray, so that jobs may share a machine. Never call `ray stop` here: it ends the Ray
# of all the user's jobs on this machine.
set -euo pipefail
exec ray start --head --block \
    --node-ip-address="$LLMZERO_HEAD" --port=0 \
    ${LLMZERO_RAY_CLIENT_PORT:+--ray-client-server-port="$LLMZERO_RAY_CLIENT_PORT"} \
    --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0 \
    --num-cpus="$LLMZERO_RAY_CPUS" --num-gpus="$LLMZERO_RAY_GPUS" \
    --temp-dir="$LLMZERO_RAY_FOLDER" --include-dashboard=false --disable-usage-stats
