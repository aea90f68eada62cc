"""Metrics of quality: on held-out text or images, on the user's tasks, and how finely a loss can be
told.
"""

from __future__ import annotations

from core.metrics.metric import Metric, Places

# Why a metric of rounding gets no verdict.
_FINENESS = "it says how small a loss can be told from rounding, not how good the plan is"
QUALITY = (
    Metric(
        "perplexity", "Perplexity", "", "lower", "quality", "quality",
        "exp of the mean negative log-likelihood per token on held-out text.",
        short="PPL", judged="paired", least=1.0, geometric=True, by_tokenizer=True,
        halving_loss=0.05, projected="carried",
        places=Places(
            run_table=9, trials_quality=1, margin_text=2, report_quality=1, text_quality=1,
            decides=3,
        ),
    ),
    Metric(
        "nats_per_byte", "Nats per byte", "nat/B", "lower", "quality", "quality",
        "Negative log-likelihood per byte of held-out text: comparable between tokenizers.",
        short="Nats/B", judged="paired", halving_loss=0.0125, projected="carried",
        places=Places(trials_quality=2, margin_text=1, text_quality=2, decides=4),
    ),
    Metric(
        "kl_nats", "KL to baseline", "nat", "lower", "quality", "quality",
        "Mean KL(baseline || candidate) per token on the same held-out tokens.",
        short="KL", judged="paired", defined=0.0, floor="kl_floor_nats", halving_loss=0.05,
        projected="carried",
        places=Places(
            run_table=10, trials_overview=6, trials_quality=3, trials_phone=4, live_text=3,
            tradeoff_text=1, margin_text=3, report_quality=3, text_quality=3, decides=2,
            decides_images=3,
        ),
    ),
    Metric(
        "top1_agreement", "Top-1 agreement", "", "higher", "quality", "quality",
        "Share of held-out positions where candidate and baseline would choose the same token or"
        " class.",
        short="Agree", judged="paired", shown_in="%", most=1.0, defined=1.0,
        floor="agreement_floor", halving_loss=0.05, projected="carried",
        places=Places(
            run_table=15, trials_quality=4, margin_text=4, margin_image=2, report_quality=4,
            text_quality=4, decides=5, decides_images=2,
        ),
    ),
    Metric(
        "kl_floor_nats", "KL floor", "nat", "lower", "quality", "",
        "Mean KL per token between two equally correct programs of the unchanged model on the"
        " same held-out tokens: rounding alone, so a smaller KL to baseline is no loss.",
        judged="paired", unjudged=_FINENESS, projected="carried",
    ),
    Metric(
        "agreement_floor", "Top-1 agreement, floor", "", "higher", "quality", "",
        "Share of held-out positions where two equally correct programs of the unchanged model"
        " would choose the same token: rounding alone, so a higher agreement is no loss.",
        judged="paired", unjudged=_FINENESS, shown_in="%", most=1.0, projected="carried",
    ),
    Metric(
        "rounding_kl_nats", "KL of loading", "nat", "lower", "quality", "",
        "Mean KL(file || unchanged model) per token where a file's numbers cannot be computed"
        " with as they are stored: what is lost before any technique.",
        judged="paired", unjudged=_FINENESS,
    ),
    Metric(
        "accuracy", "Accuracy", "", "higher", "quality", "quality",
        "Share of held-out examples classified correctly.",
        short="Acc.", judged="paired", shown_in="%", most=1.0, halving_loss=0.02,
        projected="carried",
        places=Places(
            run_table=11, trials_overview=7, trials_quality=5, trials_phone=5, live_image=3,
            tradeoff_image=1, margin_image=1, report_quality=2, decides=6, decides_images=1,
        ),
    ),
    Metric(
        "task_accuracy", "Task accuracy", "", "higher", "quality", "quality",
        "Share of the user's own tasks answered rightly: choices ranked by their summed"
        " log-likelihood, or exact matches of greedy text.",
        judged="paired", shown_in="%", most=1.0, halving_loss=0.02,
        places=Places(run_table=12, margin_text=5, decides=1),
    ),
    Metric(
        "task_accuracy_norm", "Task accuracy, by length", "", "higher", "quality", "quality",
        "Share of multiple-choice tasks answered rightly when each choice's log-likelihood is"
        " divided by its bytes.",
        judged="paired", shown_in="%", most=1.0,
        places=Places(run_table=13),
    ),
    Metric(
        "flips", "Flips", "", "lower", "quality", "quality",
        "Share of tasks or images that were right in the baseline and are wrong now, or the other"
        " way round (Dutta et al. 2024).",
        judged="paired", shown_in="%", most=1.0, defined=0.0,
        places=Places(run_table=14, margin_text=6, margin_image=3),
    ),
)  # fmt: skip
