#!/bin/sh
# Submits the best strategy of demo-2: 3 jobs, each of which begins when the one before it has succeeded.
# After a failure it can be submitted again: what is trained already is not trained again.
set -eu
cd '/project/my strategy/jobs'
job=
job=$(sbatch --parsable ${job:+"--dependency=afterok:$job" --kill-on-invalid-dep=yes} phase_1/job.sh)
job=${job%%;*}
echo phase_1": job $job"
job=$(sbatch --parsable ${job:+"--dependency=afterok:$job" --kill-on-invalid-dep=yes} phase_2/job.sh)
job=${job%%;*}
echo phase_2": job $job"
job=$(sbatch --parsable ${job:+"--dependency=afterok:$job" --kill-on-invalid-dep=yes} test/job.sh)
job=${job%%;*}
echo test": job $job"
