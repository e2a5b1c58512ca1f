{% if profile.modules %}
if ! command -v module >/dev/null; then
    for init in "${LMOD_PKG:-/usr/share/lmod/lmod}/init/bash" "${MODULESHOME:-/usr/share/modules}/init/bash" /etc/profile.d/{lmod,modules}.sh; do
        # shellcheck source=/dev/null
        if [ -r "$init" ]; then . "$init"; break; fi
    done
fi
{% for module in profile.modules %}
module load {{ module | quote }} || { echo {{ ("llmzero-hpc: module " ~ module ~ " cannot be loaded") | quote }} >&2; exit 1; }
{% endfor %}
{% endif %}
{% if profile.scratch %}
llmzero_scratch="{{ profile.scratch | variables }}"
{% for name, folder in (("HF_HOME", "huggingface"), ("XDG_CACHE_HOME", "cache"), ("VLLM_CACHE_ROOT", "vllm"), ("TRITON_CACHE_DIR", "triton"), ("TORCHINDUCTOR_CACHE_DIR", "inductor")) %}
export {{ name }}="${{ "{" }}{{ name }}:-$llmzero_scratch/{{ folder }}}"
{% endfor %}
{% endif %}
{% if profile.node_local %}
export TMPDIR="{{ profile.node_local | variables }}/llmzero-$SLURM_JOB_ID"
on_each_machine() { {{ "timeout 60 srun --ntasks-per-node=1 " if nodes > 1 else "" }}"$@"; }
on_each_machine mkdir -p "$TMPDIR" || exit 1
trap 'on_each_machine rm -rf "$TMPDIR"' EXIT
{% endif %}
{% for name, value in profile.environment.items() %}
export {{ name }}={{ value | quote }}
{% endfor %}
{% for line in profile.setup %}
{{ line }}
{% endfor %}
# with --export=NONE, srun would not pass on what was set above
unset SLURM_EXPORT_ENV
