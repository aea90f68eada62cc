"""Metrics of what a plan takes: memory, disk, energy and money."""

from __future__ import annotations

from core.metrics.metric import Metric, Places

COST = (
    Metric(
        "model_bytes", "Model size", "B", "lower", "size", "size",
        "Bytes of all weights as they lie in memory, scales and tables included.",
        short="Size", judged="exact", projected="carried",
        places=Places(
            run_table=7, trials_overview=5, trials_size=1, live_text=5, live_image=4, plan_text=3,
            plan_image=3, sensor=3, decides=1,
        ),
    ),
    Metric(
        "peak_bytes", "Peak memory", "B", "lower", "size", "size",
        "Highest resident memory while the model served one round, less what the process held"
        " before the model was loaded; freed memory does not count.",
        short="Peak",
        places=Places(
            run_table=8, trials_size=2, plan_text=4, plan_image=4, sensor=4, note_of_origin=5,
            decides=2,
        ),
    ),
    Metric(
        "memory_bytes", "Memory of model and work", "B", "lower", "size", "",
        "Bytes of weights, KV cache and workspace at the peak of one round, counted by tensor;"
        " its parts, and what the libraries hold beside them, stand under conditions and add up to"
        " the peak.",
        judged="exact", projected="account",
    ),
    Metric(
        "kv_bytes", "KV cache", "B", "lower", "size", "",
        "Bytes of the keys and values of one group of sequences at its full length, a draft's"
        " included; the method says how many one token takes.",
        judged="exact", projected="carried",
    ),
    Metric(
        "device_peak_bytes", "Peak of device memory", "B", "lower", "size", "",
        "Highest memory that tensors held on the GPU while one round was served, as torch's"
        " allocator counts it.",
    ),
    Metric(
        "disk_bytes", "Size on disk", "B", "lower", "size", "",
        "Bytes of the files of the artefact: weights, configuration and tokenizer.",
        judged="exact", projected="carried",
    ),
    Metric(
        "energy_j_per_token", "Energy per token", "J", "lower", "energy", "energy",
        "Joules per new token (per image for classifiers), idle power subtracted; unavailable"
        " where nothing can be read.",
        short="Energy", judged="timed",
        places=Places(trials_cost=1, by_round=6, sensor=5, decides=1),
    ),
    Metric(
        "energy_prefill_j_per_token", "Energy per prompt token", "J", "lower", "energy", "",
        "Joules of reading the prompts, the first new token included, per prompt token; idle"
        " power subtracted.",
        judged="timed",
    ),
    Metric(
        "energy_decode_j_per_token", "Energy per decoded token", "J", "lower", "energy", "",
        "Joules of the steps after the first new token, per token that they gave; idle power"
        " subtracted.",
        judged="timed",
    ),
    Metric(
        "usd_per_mtok", "Cost per million tokens", "$", "lower", "cost", "cost",
        "Dollars of rent per million new tokens at the measured or projected throughput.",
        short="Cost", judged="timed",
        places=Places(trials_cost=2, decides=1),
    ),
)  # fmt: skip
