"""What `paretune plan` prints and its JSON: a plan in words, the planner's own record, and a certificate.

Not here: the numbers (`planner.py`). A certificate is a run of a few steps under the guard's memory cap, in a process
of its own, with the largest pass of the option that needs most of what is said to fit.

    lines(plan, summary(errors([Path("runs")])))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from paretune.core.config import JsonObject
from paretune.core.limits import memory_limit_bytes
from paretune.core.units import parse_bytes, parse_seconds, size_text
from paretune.study.design import Study, read_study_file
from paretune.study.plan_record import errors, summary
from paretune.study.planner import Limits, MethodPlan, Option, StudyPlan, plan_study
from paretune.study.trial import run_trial
from paretune.study.trial_steps import Trial

CERTIFY_SECONDS = 600.0
CERTIFY_STEPS = 3


@dataclass(frozen=True)
class Certificate:
    """The outcome of running under the cap: which method, whether it held, and why not."""

    method: str
    cap_bytes: int
    held: bool
    reason: str
    peak_memory_bytes: int | None


def limits_of(study: Study, memory: str | None, seconds: str | None) -> Limits:
    """The command line's limits, else the study's; memory is never more than the machine's.

    Raises:
        ConfigError: no number, or an unknown unit.
    """
    asked = parse_bytes(memory) if memory else study.file.budget.memory_bytes
    longest = parse_seconds(seconds) if seconds else study.file.budget.seconds
    return Limits(min(asked, memory_limit_bytes()) if asked else memory_limit_bytes(), longest)


def plan_command(
    file: Path,
    base: Path | None,
    memory: str | None,
    seconds: str | None,
    runs: Path,
    certified: bool,
    again: bool,
    note: Callable[[str], None],
) -> tuple[list[str], JsonObject, bool]:
    """Lines for a reader, the JSON object, and whether everything fits.

    Raises:
        UsageError: the study file, its data or its model cannot be used, or a limit is none.
    """
    study = read_study_file(file, base)
    plan = plan_study(study, limits_of(study, memory, seconds), note, again)
    record = summary(errors([runs]))
    certificate = certify(plan, study, note) if certified else None
    fits = not plan.misfits and (certificate is None or certificate.held)
    return lines(plan, record, certificate), tree(plan, record, certificate), fits


def certify(plan: StudyPlan, study: Study, note: Callable[[str], None]) -> Certificate | None:
    """Run the largest of what is said to fit under the cap; None where nothing is."""
    fitting = [(one, one.chosen) for one in plan.methods if one.chosen is not None]
    if not fitting or plan.limits.memory_bytes is None:
        return None
    method, option = max(fitting, key=lambda one: one[1].memory_bytes)
    cap = int(plan.limits.memory_bytes)
    note(f"certifying: {method.label} under a cap of {size_text(cap)}")
    choice = study.methods[method.label]
    end = run_trial(
        Trial(
            model=plan.model,
            kind=choice.kind,
            settings=choice.method.settings.model_dump(mode="json"),
            batch_size=option.setting.batch_size,
            micro_batch_size=option.setting.micro_batch_size,
            max_tokens=study.file.train.max_tokens,
            precision=option.setting.precision,
            activation_checkpointing=option.setting.activation_checkpointing,
            steps=CERTIFY_STEPS,
            cap_bytes=cap,
        ),
        CERTIFY_SECONDS,
    )
    peak = None if end.sample is None else max(end.sample.peak_bytes, end.sample.evaluation_peak_bytes)
    return Certificate(method.label, cap, end.sample is not None, end.reason, peak)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _setting(option: Option) -> str:
    chosen = option.setting
    parts = f" = {chosen.accumulation} × {chosen.micro_batch_size}" if chosen.accumulation > 1 else ""
    recomputed = ", activation checkpointing" if chosen.activation_checkpointing else ""
    return f"batch {chosen.batch_size}{parts}, {chosen.precision}{recomputed}"


def lines(plan: StudyPlan, record: JsonObject | None, certificate: Certificate | None = None) -> list[str]:
    """The plan in words."""
    memory = "no limit" if plan.limits.memory_bytes is None else size_text(plan.limits.memory_bytes)
    longest = "no limit" if plan.limits.seconds is None else _time(plan.limits.seconds)
    found = [f"{plan.name}: {plan.model}; a run may take {memory} of memory and {longest}"]
    for method in plan.methods:
        found += _method_lines(method, plan.limits)
    found.append(f"the whole study, search and seeds: {_time(plan.total_seconds)}")
    found += plan.notes
    for precision, constants in plan.calibrations.items():
        if constants.unmeasured:
            missing = ", ".join(constants.unmeasured)
            found.append(
                f"{precision}: less sure, as the probe's time was over before such a step: {missing} (--again)"
            )
    if record is None:
        found.append("the planner's record: no run with a prediction yet")
    else:
        found.append(
            f"the planner's record over {record['runs']} runs: memory off by {record['memory_error_median']:.1%} "
            f"(median; 9 of 10 within {record['memory_error_p90']:.1%}; worst too low by "
            f"{record['worst_under_prediction']:.1%}), time by {record['time_error_median']:.1%}"
        )
    if certificate is not None:
        found.append(_certificate_line(certificate))
    return found


def _certificate_line(one: Certificate) -> str:
    where = f"{one.method} under an enforced cap of {size_text(one.cap_bytes)}"
    if one.held:
        peak = "" if one.peak_memory_bytes is None else f", peak {size_text(one.peak_memory_bytes)}"
        return f"certified: {where} trained and evaluated{peak}"
    return f"not certified: {where}: {one.reason}"


def _method_lines(method: MethodPlan, limits: Limits) -> list[str]:
    best = method.best
    if best is None:
        return [f"{method.label}: {method.reason}"]
    predicted = best.predicted
    assert method.own is not None and method.total_seconds is not None, "what has an option has its own"
    found = [
        f"{method.label}: {_verdict(method, limits)}",
        f"  trains {predicted.trainable_parameters:,} parameters, adapter {size_text(predicted.adapter_bytes)}, "
        f"{predicted.train_flops:.3g} FLOP a run",
        f"  memory {size_text(best.memory_bytes)} under a cap, "
        f"{size_text(predicted.peak_memory_bytes or 0.0)} resident: "
        + ", ".join(f"{name} {size_text(value)}" for name, value in predicted.parts.items() if abs(value) >= 2**20),
        "  seconds: "
        + ", ".join(f"{name} {value:.1f}" for name, value in predicted.seconds.items())
        + f", predict {best.scoring.seconds:.1f}, latency {best.scoring.latency_seconds:.1f}; "
        f"{method.trials} trials and {method.seeds} seeds: {_time(method.total_seconds)}",
    ]
    return found


def _verdict(method: MethodPlan, limits: Limits) -> str:
    assert method.own is not None
    if method.chosen is method.own:
        return f"fits ({_setting(method.own)})"
    if method.chosen is not None:
        return f"fits with another setting: {_setting(method.chosen)} (the study's own: {_setting(method.own)})"
    assert method.nearest is not None
    misses = method.nearest.misses(limits)
    over = " and ".join(
        f"{size_text(value)} too much memory" if name == "memory_bytes" else f"{_time(value)} too long"
        for name, value in misses.items()
    )
    shorter = f"; with max_tokens = {method.shorter_tokens} it would fit" if method.shorter_tokens else ""
    return f"fits with no setting; nearest is {_setting(method.nearest)}, {over}{shorter}"


def tree(plan: StudyPlan, record: JsonObject | None, certificate: Certificate | None = None) -> JsonObject:
    """The plan as one JSON object; bytes and seconds."""
    return {
        "study": plan.name,
        "model": plan.model,
        "limits": asdict(plan.limits),
        "methods": [_method_tree(one, plan.limits) for one in plan.methods],
        "total_seconds": plan.total_seconds,
        "fits": not plan.misfits,
        "misfits": plan.misfits,
        "notes": plan.notes,
        "probe_seconds": {name: one.probe_seconds for name, one in plan.calibrations.items()},
        "unmeasured": {name: one.unmeasured for name, one in plan.calibrations.items()},
        "record": record,
        "certificate": None if certificate is None else asdict(certificate),
    }


def _method_tree(method: MethodPlan, limits: Limits) -> JsonObject:
    best, own = method.best, method.own
    if best is None or own is None:
        return {"method": method.label, "kind": method.kind, "fits": None, "reason": method.reason}
    misses = {} if method.chosen is not None else best.misses(limits)
    return {
        "method": method.label,
        "kind": method.kind,
        "fits": method.chosen is not None,
        "as_written": method.chosen is own,
        "over": misses,
        "shorter_tokens": method.shorter_tokens,
        "batch_size": best.setting.batch_size,
        "micro_batch_size": best.setting.micro_batch_size,
        "accumulation": best.setting.accumulation,
        "precision": best.setting.precision,
        "activation_checkpointing": best.setting.activation_checkpointing,
        "trainable_parameters": best.predicted.trainable_parameters,
        "adapter_bytes": best.predicted.adapter_bytes,
        "train_flops": best.predicted.train_flops,
        "memory_bytes": best.memory_bytes,
        "peak_memory_bytes": best.predicted.peak_memory_bytes,
        "parts": best.predicted.parts,
        "seconds": {
            **best.predicted.seconds,
            "predict": best.scoring.seconds,
            "latency": best.scoring.latency_seconds,
        },
        "trials": method.trials,
        "seeds": method.seeds,
        "total_seconds": method.total_seconds,
    }
