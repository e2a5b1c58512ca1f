#!/bin/sh
# Runs the best strategy of {{ search }} on this machine, without Slurm. Begun again, it goes on where it was.
set -eu
cd {{ folder | quote }}
{% for one in jobs %}
echo {{ one | quote }}
{{ commands[one] }}
{% endfor %}
