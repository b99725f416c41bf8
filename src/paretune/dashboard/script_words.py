"""Words that scripts put on a page, sent with it in its language.

Not here: what the server writes itself. `{name}` is filled in by the script.

    live_words(Words("ru"))["seed"]
"""

from __future__ import annotations

from paretune.report.wording import SIZE_UNITS, Words


def live_words(words: Words) -> dict[str, str]:
    """For what runs now."""
    return {
        "seed": words.say("seed {seed}"),
        "rate": words.say("learning rate {rate}"),
        "step": words.say("step {step} of {steps}"),
        "step_only": words.say("step {step}"),
        "loss": words.say("training loss {loss}"),
        "left": words.say("about {time} left"),
        "torn": words.say("unreadable lines: {count}"),
        "nothing": words.say("Nothing runs now."),
        "more": words.say("and {count} more"),
        "lost": words.say("The dashboard does not answer; it is asked again."),
        "curve": words.say("Training loss of {method} against the step"),
        "new": words.say("New results are shown."),
        "waiting": words.say("There are new results; they are shown once you leave this part, or reload the page."),
    }


def budget_words(words: Words) -> dict[str, str]:
    """For the slider."""
    return {
        "free": words.say("no limit"),
        "mib": SIZE_UNITS[words.lang]["MiB"],
        "gib": SIZE_UNITS[words.lang]["GiB"],
        "best": words.say("Best within the budget: {methods}."),
        "none": words.say("Nothing fits into this budget."),
        "partly": words.say("In {share} of the resampled studies nothing fits."),
        "fits": words.say("fits in {share} of them"),
        "never": words.say("does not fit"),
    }
