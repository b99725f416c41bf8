"""Figures: data first, and specs that Vega-Lite accepts."""

from __future__ import annotations

import altair
import pytest
from fabricated_study import exploration, write_study

from paretune.core.config import JsonObject
from paretune.records.store import StudyFolder
from paretune.report import axes, labels
from paretune.report.confusion import confusion_data, confusion_figures
from paretune.report.curves import curve_data, curve_figure
from paretune.report.exploration_figures import exploration_figures
from paretune.report.facts import StudyFacts, gather
from paretune.report.figures import difference_figure, quality_data, quality_figure
from paretune.report.front import cost_axes, front_data, front_figures
from paretune.report.ink import Figure, drawn, themed, values
from paretune.report.latency import latency_figure
from paretune.report.tables import rows_of
from paretune.report.wording import Words


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> StudyFacts:
    return gather(StudyFolder(write_study(tmp_path_factory.mktemp("study") / "s")))


def all_figures(facts: StudyFacts, lang: str) -> list[Figure]:
    words, rows = Words(lang), rows_of(facts)
    found = [
        quality_figure(facts, words),
        difference_figure(facts, rows, words),
        curve_figure(facts, words),
        latency_figure(rows, words),
        *front_figures(facts, words),
        *confusion_figures(facts, words),
        *exploration_figures(exploration(), words),
    ]
    return [figure for figure in found if figure is not None]


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_every_spec_is_valid_vega_lite(facts: StudyFacts, lang: str) -> None:
    """Altair checks each spec, wide and narrow, against the schema of Vega-Lite."""
    figures = all_figures(facts, lang)
    assert len(figures) >= 11
    for figure in figures:
        for spec in (figure.wide, figure.narrow):
            altair.Chart.from_dict(spec)
        assert figure.rows
        assert figure.sheet.rows


def test_drawings_are_the_same_each_time_and_follow_the_theme(facts: StudyFacts) -> None:
    """Text is drawn in the page's own colour, and ids do not depend on what was drawn before."""
    figure = quality_figure(facts, Words("ru"))
    assert figure is not None
    first, second = (drawn(figure.wide, Words("ru"), "q") for _ in range(2))
    assert first == second
    assert 'fill="currentColor"' in first
    assert "0,90" in first or "0,95" in first


@pytest.mark.parametrize("label", ["\x1b[31mred", "a\0b", "a\uffff", "a\udc80"])
def test_a_label_that_xml_cannot_hold_is_drawn_as_escapes(label: str) -> None:
    """Control characters and non-characters end the drawing library, and with it the process: they are spelled out."""
    rows: list[JsonObject] = [{"label": label, "rows": 3}, {"label": "a\tb", "rows": 1}]
    encoding = {"x": {"field": "rows", "type": "quantitative"}, "y": {"field": "label", "type": "nominal"}}
    spec = themed({"data": values(rows), "mark": "bar", "encoding": encoding}, label)
    assert "\\u" in drawn(spec, Words("en"), "f")


def test_an_estimated_cost_has_no_front(facts: StudyFacts) -> None:
    """Energy of grade "estimated" is plotted nowhere; the three counted costs are."""
    assert [figure.name for figure in front_figures(facts, Words("en"))] == [
        "front-memory",
        "front-seconds",
        "front-parameters",
    ]


def test_standing_follows_the_probability(facts: StudyFacts) -> None:
    """From 0.95 on the front, up to 0.05 dominated, undecided between; the cheapest method is on the front."""
    points = front_data(facts, cost_axes(Words("en"))[0])
    assert len(points) == 7
    for point in points:
        assert point.p_front is not None
        expected = "front" if point.p_front >= 0.95 else "dominated" if point.p_front <= 0.05 else "undecided"
        assert point.standing == expected
    assert next(point for point in points if point.method == "majority").standing == "front"


def test_quality_is_sorted_and_has_each_seed(facts: StudyFacts) -> None:
    """Best first; a method with a failed run shows the seeds it has."""
    points = quality_data(facts)
    assert [point.quality for point in points] == sorted((point.quality for point in points), reverse=True)
    assert {point.method: len(point.seeds) for point in points}["full"] == 2


def test_curves_fall_and_baselines_have_none(facts: StudyFacts) -> None:
    """The made-up losses fall, and what is not trained step by step has no curve."""
    points = curve_data(facts)
    assert {point.method for point in points} == {"head", "last2", "bitfit", "lora", "full"}
    lora = [point for point in points if point.method == "lora"]
    assert lora[0].step == 1
    assert lora[-1].step == 90
    assert lora[-1].loss < lora[0].loss / 4


def test_confusion_counts_every_prediction_once(facts: StudyFacts) -> None:
    """Cells add up to test examples × seeds, and shares of a class to one."""
    cells = confusion_data(facts.by_label["lora"], "other")
    assert sum(cell.count for cell in cells) == 240 * 3
    assert sum(cell.share for cell in cells if cell.label == "earn") == pytest.approx(1)


def test_labels_of_a_crowded_plot_do_not_overlap() -> None:
    """Six points in a small place get six places."""
    spots = [labels.Spot(100 + 6 * at, 100 + 3 * at, f"method {at} (50 %)") for at in range(6)]
    places = labels.placed(spots, 400, 300)
    boxes = [labels._box(spot, place) for spot, place in zip(spots, places, strict=True)]
    overlaps = [labels._overlap(a, b) for at, a in enumerate(boxes) for b in boxes[at + 1 :]]
    assert max(overlaps) == 0
    assert all(box[0] >= 0 and box[2] <= 400 for box in boxes)


def test_line_ends_are_spread_out() -> None:
    """Neighbouring names keep their order and their distance inside the frame."""
    moved = labels.spread_out([290, 291, 292, 100], 15, 0, 300)
    assert moved[3] == 100
    assert moved == pytest.approx([270, 285, 300, 100])


def test_one_far_value_does_not_squeeze_the_others() -> None:
    """A majority class far below is left outside the frame; close values all stay in."""
    assert axes.core([0.45, 0.93, 0.95, 0.97]) == (0.93, 0.97)
    assert axes.core([0.90, 0.93, 0.95, 0.97]) == (0.90, 0.97)


def test_ticks_are_round_and_inside() -> None:
    """Linear and logarithmic ticks lie in the domain and are few."""
    assert axes.nice_ticks(0.0, 1.0, 4) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0] or len(axes.nice_ticks(0.0, 1.0, 4)) <= 6
    ticks = axes.log_ticks(0.008, 90, 5)
    assert 2 <= len(ticks) <= 5
    assert all(0.008 <= tick <= 90 for tick in ticks)
