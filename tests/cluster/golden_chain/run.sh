#!/bin/sh
# Runs the best strategy of demo-2 on this machine, without Slurm. Begun again, it goes on where it was.
set -eu
cd '/project/my strategy/jobs'
echo phase_1
/home/me/.venv/bin/python3 -u -m llmzero_hpc.cluster.chain_job rehearsal train '/project/my strategy/jobs/phase_1'
echo phase_2
/home/me/.venv/bin/python3 -u -m llmzero_hpc.cluster.chain_job rehearsal train '/project/my strategy/jobs/phase_2'
echo test
/home/me/.venv/bin/python3 -u -m llmzero_hpc.cluster.chain_job rehearsal score '/project/my strategy/jobs/test'
