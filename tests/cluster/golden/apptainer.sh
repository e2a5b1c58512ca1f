#!/bin/bash

# Parameters
#SBATCH --comment='llmzero-hpc: search demo-2, phase 0003, attempt 2'
#SBATCH --error='/project/my state/demo-2/phases/0003/attempts/2/submission/%j_0_log.err'
#SBATCH --gres=gpu:1
#SBATCH --job-name=lz-demo-2-k3j4-0003-2
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output='/project/my state/demo-2/phases/0003/attempts/2/submission/%j_0_log.out'
#SBATCH --requeue
#SBATCH --signal=USR2@90
#SBATCH --time=1440

# setup
# with --export=NONE, srun would not pass on what was set above
unset SLURM_EXPORT_ENV

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/project/my state/demo-2/phases/0003/attempts/2/submission/%j_%t_log.out' --error '/project/my state/demo-2/phases/0003/attempts/2/submission/%j_%t_log.err' --kill-on-bad-exit=1 apptainer exec --nv '--bind=/project/my data:/data' '/images/grpo 2.sif' python3 -u -m submitit.core._submit '/project/my state/demo-2/phases/0003/attempts/2/submission'
