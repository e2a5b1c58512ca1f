"""A single-stage search resumes nothing, repairs included."""

from __future__ import annotations

from dataclasses import replace

import pytest
from controller_world import small_config

from llmzero_hpc.agents.base import Repair
from llmzero_hpc.agents.checks import repair_problems
from llmzero_hpc.agents.playbook import Playbook
from llmzero_hpc.controller.questions import Questions, with_repair
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.metrics import Series
from llmzero_hpc.search.node import Checkpoint, Node, NodeStatus, Rationale, TransitionKind
from llmzero_hpc.search.rules import Rules
from llmzero_hpc.search.tree import Tree

_ROWS = 512


@pytest.mark.parametrize("single_stage", [False, True])
def test_a_repair_is_offered_a_checkpoint_of_the_failed_phase_unless_phases_are_whole_runs(single_stage: bool) -> None:
    config = small_config().model_copy(update={"rules": Rules(single_stage=single_stage)})
    failed = Node(
        0,
        TransitionKind.SCRATCH,
        None,
        seed=0,
        created_at=0.0,
        status=NodeStatus.FAILED,
        configuration=Configuration(),
        checkpoints=(Checkpoint(10, 0.5),),
        total_steps=20,
    )
    planned = Node(1, TransitionKind.DEBUG, 0, seed=1, created_at=0.0, repairs=0)
    questions = Questions(config, _ROWS, lambda _: Series())
    request = questions.failure(Tree((failed, planned)), planned, "RuntimeError: out of memory")

    wanted = Repair(Configuration(), Rationale("a-model", "go on"), resume_step=10)
    refused = repair_problems(request, wanted, lambda _: [])
    assert refused == (["step 10 is not a checkpoint of node 0"] if single_stage else [])
    played = with_repair(planned, request, Playbook().repair(request), _ROWS)
    assert (played.resume is None) is single_stage
    assert replace(request.node, checkpoints=failed.checkpoints) == failed
