"""The step that loads the model, or a kept prefix of the plan in its place; before that a rehearsal
makes libraries resident, so that memory does not count them.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from core.catalogue.planned import checked
from core.data.passages import digits, prompts
from core.engine.load.load import load_engine, load_tokenizer, random_engine
from core.errors import Refused
from core.files.config.decoder_config import DecoderConfig
from core.files.folder import CheckedFolder
from core.measure.memory import reset_peak, resident_bytes
from core.measure.steps.context import TrialRun
from core.model import Model
from core.plan import Plan
from core.techniques.deployment import Deployment

TINY = DecoderConfig(
    family="llama",
    vocab_size=64,
    hidden_size=64,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=32,
    intermediate_sizes=(64,),
    max_positions=64,
)


def load(run: TrialRun) -> None:
    """Load the unchanged model as `run.deployment`, or as a kept prefix of the plan changed it."""
    model, device = run.plan.case.model, run.device
    check_device(run)
    if model.source != "shape":
        run.files = checked(model, run.planned)
    run.tokenizer = tokenizer_of(run)
    rehearse(run.plan, run.tokenizer, run.source, device)
    reset_peak()
    run.resident_before = resident_bytes()
    run.began = time.perf_counter()
    run.report("load")(0.0)
    if run.prefixes is not None:
        run.prefix, damaged = run.prefixes.load(run.plan, device)
        run.note(*damaged)
    run.deployment = Deployment(
        case=run.plan.case,
        engine=run.prefix.engine if run.prefix else load_engine(run.source, device=device),
        load_baseline=lambda: load_engine(run.source, device=device),
        tokenizer=run.tokenizer,
        device=device,
        seed=run.plan.seed,
        note=run.note,
        keep=run.send,
    )
    if run.prefix is not None:
        # The deployment's alone, so that it is let go when a technique replaces it.
        run.prefix = replace(run.prefix, engine=None)


def check_device(run: TrialRun) -> None:
    """Raise Refused where the target is this machine's GPU and torch cannot use it."""
    if run.device != "cuda":
        return
    import torch

    if torch.cuda.is_available():
        return
    why = "it finds no device"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        why = " ".join(str(error).split())[:200]
    raise Refused(
        f"{run.plan.case.target.title}: the driver shows a GPU that torch {torch.__version__}"
        f" cannot use ({why}); install a torch built for this driver, or plan for the processor"
        " with CUDA_VISIBLE_DEVICES set to nothing"
    )


def rehearse(
    plan: Plan, tokenizer: Any, source: Model | CheckedFolder, device: str = "cpu"
) -> None:
    """Do once, with a tiny decoder, what the trial will do, so that libraries and what they keep
    are resident before memory is counted: a trial that trains imports 150 MB that are no model,
    a GPU's driver and libraries take a gigabyte of the host.
    """
    import torch

    from core.engine.serve.generate import generate

    if plan.case.model.task == "image":
        load_engine(source, device=device)(digits("held_out")[0][:1].to(device))
        return
    if tokenizer is not None:
        workload = plan.case.workload
        prompts(tokenizer, (), workload.concurrency, workload.prompt_tokens, 0, plan.seed)
    if device == "cuda":
        # Its context and its library of products; kernels are compiled for the shapes they run on.
        number = torch.ones(16, 16, dtype=torch.bfloat16, device=device)
        torch.mm(number, number)
        torch.cuda.synchronize()
        return
    engine = random_engine(TINY, plan.case.model.precision)
    generate(engine, torch.zeros(1, 32, dtype=torch.int64), 4)
    if any(technique.trains for technique in plan.techniques):
        from core.techniques import training_loop

        training_loop.rehearse(engine)


def tokenizer_of(run: TrialRun) -> Any:
    """The model's tokenizer; None for images, for random weights and for a folder that has none."""
    if run.plan.case.model.task == "image" or run.files is None:
        return None
    return load_tokenizer(run.files) if run.files.tokenizer_file is not None else None
