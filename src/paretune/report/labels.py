"""Where to write the names beside the points of a plot so that they do not lie on each other or on a point.

Not here: drawing. A greedy search over a few places around each point, in pixels; small and deterministic.

    placed([Spot(10, 10, "lora")], 300, 200)[0].align
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CHARACTER_WIDTH = 6.6  # mean advance of a sans-serif font of 12 px
LINE_HEIGHT = 14.0
POINT = 9.0


@dataclass(frozen=True)
class Spot:
    """A point in pixels (y downwards) and the text that belongs to it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Place:
    """Offset of a text from its point, and which of its edges lies there ("left", "right" or "center")."""

    dx: float
    dy: float
    align: str


Box = tuple[float, float, float, float]


def placed(spots: Sequence[Spot], width: float, height: float) -> list[Place]:
    """A place for each text; texts that are crowded in go further away."""
    points: list[Box] = [(spot.x - POINT, spot.y - POINT, spot.x + POINT, spot.y + POINT) for spot in spots]
    taken: list[Box] = []
    found: list[Place] = []
    for index, spot in enumerate(spots):
        others = [box for number, box in enumerate(points) if number != index]
        place = min(
            _candidates(),
            key=lambda one: (_cost(one, spot, others, taken, width, height), abs(one.dx) + 1.5 * abs(one.dy)),
        )
        found.append(place)
        taken.append(_box(spot, place))
    return found


def _candidates() -> list[Place]:
    places: list[Place] = []
    for step in range(5):
        far = step * LINE_HEIGHT
        for dy in {-far, far}:
            places += [Place(11, dy, "left"), Place(-11, dy, "right")]
        places += [Place(0, -16 - far, "center"), Place(0, 18 + far, "center")]
    return sorted(places, key=lambda place: (abs(place.dx) + abs(place.dy), place.dx, place.dy))


def _box(spot: Spot, place: Place) -> Box:
    length = len(spot.text) * CHARACTER_WIDTH
    left = spot.x + place.dx
    if place.align == "right":
        left -= length
    elif place.align == "center":
        left -= length / 2
    middle = spot.y + place.dy
    return left, middle - LINE_HEIGHT / 2, left + length, middle + LINE_HEIGHT / 2


def _overlap(a: Box, b: Box) -> float:
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    return across * down if across > 0 and down > 0 else 0.0


def _cost(place: Place, spot: Spot, points: list[Box], taken: list[Box], width: float, height: float) -> float:
    box = _box(spot, place)
    outside = max(0.0, -box[0]) + max(0.0, box[2] - width) + max(0.0, -box[1]) + max(0.0, box[3] - height)
    texts = sum(_overlap(box, other) for other in taken)
    marks = sum(_overlap(box, other) for other in points)
    return round(outside * 30 + texts * 4 + marks * 2, 3)


def spread_out(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights moved apart so that neighbours are at least `gap` from each other, within low..high where it fits."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    moved = list(heights)
    floor = low
    for index in order:
        moved[index] = max(moved[index], floor)
        floor = moved[index] + gap
    ceiling = high
    for index in reversed(order):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    return moved
