"""What there is to say about a metric: the type of an entry, and the lists that it may join."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Places:
    """The metric's place in each list that a page, a document or a measurement goes through, from 1
    on; 0: it is not in that list.
    """

    # The table that `trimtab run` and `trimtab show` print.
    run_table: int = 0
    # Columns of the Trials page: its presets, and what a phone has room for.
    trials_overview: int = 0
    trials_speed: int = 0
    trials_size: int = 0
    trials_quality: int = 0
    trials_cost: int = 0
    trials_phone: int = 0
    # Columns of the Live and the Plan page.
    live_text: int = 0
    live_image: int = 0
    plan_text: int = 0
    plan_image: int = 0
    # Charts: round by round on the Trial page, on Compare until the user chooses another, and the
    # axes of Trade-offs.
    by_round: int = 0
    compare_chart: int = 0
    tradeoff_cost: int = 0
    tradeoff_text: int = 0
    tradeoff_image: int = 0
    # The quality axis of a report's chart.
    report_quality: int = 0
    # Metrics for which the Plan page offers a margin.
    margin_text: int = 0
    margin_image: int = 0
    # Measured again under other prompt lengths and other concurrencies.
    by_prompt_length: int = 0
    by_concurrency: int = 0
    # What judging a text gives; what a microcontroller is projected to reach.
    text_quality: int = 0
    sensor: int = 0
    # Told in a note where the trial's numbers are those of another target.
    note_of_origin: int = 0
    # By which metric a priority's word is scored: the first that is known decides.
    decides: int = 0
    decides_images: int = 0


@dataclass(frozen=True)
class Metric:
    """One metric; everything that depends on which metric it is stands here.

    `unit` is the stored number's, `shown_in` the unit that people read where it differs (`%`,
    `tokens/s`). `better` is `lower` or `higher`. `priority` is the user's word that weighs it, or
    empty. `quantile` is what the value is of its samples: the median unless it is a tail. `short`
    is the label of a narrow column. `least` and `most` are the ends of what it can be.

    How it is judged: `judged` is `timed` (in turns with the baseline), `paired` (on the same text
    or items), `exact` (counted: one sample is the whole truth) or `apart`. `unjudged` says why it
    never gets a verdict. `geometric`: its mean over windows is that of the logarithms.
    `by_tokenizer`: models with other tokenizers cannot be compared by it. `defined` is what the
    unchanged model has to itself by definition. `floor` names the metric that says what two correct
    programs of the unchanged model differ by. `halving_loss` is the loss that costs as much as
    halving any other priority's metric gains (core.verdict.utility).

    `projected` says how it comes to another target: `carried` (a fact of the artefact), `roofline`,
    `account` (arithmetic over shapes), `stays` (true of the machine that measured), or empty: not
    from a measurement here.
    """

    name: str
    label: str
    unit: str
    better: str
    group: str
    priority: str
    meaning: str
    quantile: float = 0.5
    short: str = ""
    shown_in: str = ""
    least: float = 0.0
    most: float = float("inf")
    judged: str = "apart"
    unjudged: str = ""
    geometric: bool = False
    by_tokenizer: bool = False
    defined: float | None = None
    floor: str = ""
    halving_loss: float | None = None
    projected: str = ""
    places: Places = field(default=Places())

    @property
    def timed(self) -> bool:
        """Whether it depends on the hour and on how many requests are served."""
        return self.judged == "timed"

    @property
    def takes_margin(self) -> bool:
        """Whether a user can accept a loss of it. Without a priority it says how well quality can
        be told, not what it is."""
        return self.group == "quality" and bool(self.priority)

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1."""
        return self.most == 1.0
