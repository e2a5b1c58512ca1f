#!/bin/sh
# Submits the best strategy of {{ search }}: {{ jobs | length }} jobs, each of which begins when the one before it has succeeded.
# After a failure it can be submitted again: what is trained already is not trained again.
set -eu
cd {{ folder | quote }}
job=
{% for one in jobs %}
job=$(sbatch --parsable ${job:+"--dependency=afterok:$job" --kill-on-invalid-dep=yes} {{ one | quote }}/job.sh)
job=${job%%;*}
echo {{ one | quote }}": job $job"
{% endfor %}
