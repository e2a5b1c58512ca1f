#!/bin/bash
# Ray on each of a job's machines but the first ({{ nodes }} in all). Stays in the foreground; the job ends it.
# The job sets LLMZERO_RAY_ADDRESS (of the first machine's Ray), LLMZERO_RAY_CPUS, LLMZERO_RAY_GPUS, LLMZERO_RAY_FOLDER (short,
# as sockets lie in it), RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH. Never call `ray stop` here: it ends the Ray of all the
# user's jobs on this machine.
set -euo pipefail
exec ray start --address="$LLMZERO_RAY_ADDRESS" --block \
    --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0 \
    --num-cpus="$LLMZERO_RAY_CPUS" --num-gpus="$LLMZERO_RAY_GPUS" \
    --temp-dir="$LLMZERO_RAY_FOLDER" --disable-usage-stats
