"""Scripts that print a figure and fail when it is missed; README.md has the table of claims."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The name on the command line, and the module that does it.
FIGURES = {
    "aa": "measure.aa",
    "backup": "store.backup",
    "calibration": "measure.calibration",
    "calibration-text": "techniques.calibration_text",
    "clock": "measure.clock",
    "damage": "store.damage",
    "failures": "jobs.failures",
    "folders": "files.folders",
    "fuzz": "files.fuzz",
    "gpu": "kernels.gpu",
    "gptq-awq": "techniques.gptq_awq",
    "gptq-memory": "techniques.gptq_memory",
    "gptq-peer": "techniques.gptq_peer",
    "int8": "kernels.int8",
    "kills": "jobs.kills",
    "kv-cache": "techniques.kv_cache",
    "llama-cpp": "kernels.llama_cpp",
    "lora": "techniques.lora",
    "memory": "measure.memory",
    "offline": "jobs.offline",
    "overhead": "jobs.overhead",
    "p-best": "measure.p_best",
    "packed": "kernels.packed",
    "pages": "pages.speed",
    "paired-coverage": "measure.paired_coverage",
    "payloads": "pages.payloads",
    "published": "predict.published",
    "qat": "techniques.qat",
    "record-space": "planner.record",
    "second-owner": "store.second_owner",
    "sensitivity": "techniques.sensitivity",
    "server": "measure.server",
    "slow-machine": "jobs.slow_machine",
    "store": "store.speed",
    "structure": "code.structure",
    "stuck": "jobs.stuck",
    "threads": "store.threads",
    "w8a8": "techniques.w8a8",
}
