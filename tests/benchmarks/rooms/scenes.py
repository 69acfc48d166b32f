"""Where the pieces of a room stand, drawn at random: a dining table with its chairs, a sofa, a screen, or one piece.

Metres; x to the right, y to the back, z up. A piece of angle 0 faces the front.
"""

from typing import NamedTuple

import numpy as np

from tests.benchmarks.rooms.furniture import Piece

PLANS = {"dining": 0.34, "lounge": 0.24, "screen": 0.17, "single": 0.25}
SINGLES = {
    "bottle": 0.13,
    "chair": 0.2,
    "diningtable": 0.21,
    "pottedplant": 0.14,
    "sofa": 0.13,
    "tvmonitor": 0.1,
    "car": 0.06,
    "motorbike": 0.03,
}
LARGE_PLANT = 0.6  # a higher one is made smaller before it stands on a table
Place = tuple[float, float, float]


class Placed(NamedTuple):
    """A piece, where it stands, how far it is turned in degrees, and its size as a multiple of its own."""

    piece: Piece
    at: Place
    angle: float = 0.0
    grown: float = 1.0


class Scene(NamedTuple):
    """What stands there, where the camera looks, and how many metres it wants to see."""

    placed: list[Placed]
    focus: Place
    reach: float


class Furniture:
    """The pieces by kind."""

    def __init__(self, pieces: list[Piece]) -> None:
        self._pieces = pieces

    def one(self, kind: str, random: np.random.Generator) -> Piece:
        """A piece of the kind."""
        among = [piece for piece in self._pieces if piece.kind == kind]
        return among[int(random.integers(len(among)))]


def draw(furniture: Furniture, random: np.random.Generator) -> Scene:
    """A room."""
    plan = str(random.choice(list(PLANS), p=list(PLANS.values())))
    return {"dining": dining, "lounge": lounge, "screen": screen, "single": single}[plan](furniture, random)


def dining(furniture: Furniture, random: np.random.Generator) -> Scene:
    """A table with chairs around it and things on it."""
    table, chair = furniture.one("diningtable", random), furniture.one("chair", random)
    width, depth, height = table.size
    turned = random.uniform(-25, 25)
    placed = [Placed(table, (0, 0, 0), turned)]
    sides = [(0, -1, 0.0), (0, 1, 0.0), (1, 0, 0.0), (-1, 0, 0.0)]  # the side, and how far along it
    if width > 1.3:
        sides += [(0, -1, -width / 4), (0, -1, width / 4), (0, 1, -width / 4), (0, 1, width / 4)]
    for place in random.permutation(len(sides))[: random.integers(1, min(6, len(sides)) + 1)]:
        right, back, along = sides[place]
        gap = random.uniform(0.05, 0.4)
        x, y = right * (width / 2 + gap) + along * abs(back), back * (depth / 2 + gap)
        cos, sin = np.cos(np.deg2rad(turned)), np.sin(np.deg2rad(turned))
        facing = np.rad2deg(np.arctan2(-back, -right)) + 90 + turned
        own = chair if random.random() < 0.85 else furniture.one("chair", random)
        placed.append(Placed(own, (x * cos - y * sin, x * sin + y * cos, 0), facing + random.uniform(-15, 15)))
    for _ in range(random.integers(0, 6)):
        thing = furniture.one(str(random.choice(["bottle", "bottle", "pottedplant", "small"])), random)
        grown = random.uniform(0.9, 1.5) * (0.4 / thing.size[2] if thing.size[2] > LARGE_PLANT else 1)
        at = random.uniform(-0.3, 0.3) * width, random.uniform(-0.3, 0.3) * depth, height
        placed.append(Placed(thing, at, random.uniform(0, 360), grown))
    if random.random() < 0.5:
        at = random.uniform(-2, 2), random.uniform(1, 2), 0
        placed.append(Placed(furniture.one("pottedplant", random), at))
    return Scene(placed, (0, 0, height * 0.8), max(width, depth) + 0.8)


def lounge(furniture: Furniture, random: np.random.Generator) -> Scene:
    """A sofa, a low table before it, plants, chairs or lamps beside it."""
    sofa = furniture.one("sofa", random)
    placed = [Placed(sofa, (0, 1.2, 0), random.uniform(-20, 20))]
    if random.random() < 0.6:
        at = random.uniform(-0.3, 0.3), 0.1, 0
        placed.append(Placed(furniture.one("low table", random), at, random.uniform(-20, 20)))
    for side in (-1, 1):
        x, drawn = side * (sofa.size[0] / 2 + random.uniform(0.3, 0.9)), random.random()
        if drawn < 0.35:
            at, grown = (x, random.uniform(1, 1.6), 0), random.uniform(0.9, 1.5)
            placed.append(Placed(furniture.one("pottedplant", random), at, random.uniform(0, 360), grown))
        elif drawn < 0.65:
            at = x, random.uniform(-0.2, 1), 0
            placed.append(Placed(furniture.one("chair", random), at, -side * random.uniform(20, 110)))
        elif drawn < 0.75:
            placed.append(Placed(furniture.one("lamp", random), (x, 1.4, 0)))
    return Scene(placed, (0, 1, 0.5), sofa.size[0] + 0.6)


def screen(furniture: Furniture, random: np.random.Generator) -> Scene:
    """A television or a monitor on a cabinet, or beside one that is too high, with plants and chairs around."""
    cabinet, shown = furniture.one("cabinet", random), furniture.one("tvmonitor", random)
    width, _, height = cabinet.size
    grown, angle = random.uniform(0.6, 1.1) / shown.size[0], random.uniform(-35, 35)
    x, z = (0.0, height) if height <= 1.2 else (width / 2 + 0.6, random.uniform(0.5, 1.1))
    placed = [Placed(cabinet, (0, 1.5, 0)), Placed(shown, (x, 1.4, z), angle, grown)]
    for side in (-1, 1):
        beside, drawn = x + side * random.uniform(0.8, 1.6), random.random()
        if drawn < 0.4:
            plant = furniture.one("pottedplant", random)
            placed.append(Placed(plant, (beside, 1.3, 0), 0, random.uniform(0.9, 1.5)))
        elif drawn < 0.8:
            at = beside, random.uniform(-0.2, 1), 0
            placed.append(Placed(furniture.one("chair", random), at, random.uniform(0, 360)))
    return Scene(placed, (x, 1.3, z + 0.2), 1.6)


def single(furniture: Furniture, random: np.random.Generator) -> Scene:
    """One piece from near; a bottle has company."""
    kind = str(random.choice(list(SINGLES), p=list(SINGLES.values())))
    piece = furniture.one(kind, random)
    seen_from_the_front = kind in ("sofa", "tvmonitor")
    angle = random.uniform(-70, 70) if seen_from_the_front else random.uniform(0, 360)
    placed = [Placed(piece, (0, 0, 0), angle)]
    if kind == "bottle":
        for _ in range(random.integers(0, 4)):
            at = random.uniform(-0.3, 0.3), random.uniform(0, 0.3), 0
            placed.append(Placed(furniture.one(kind, random), at))
    return Scene(placed, (0, 0, piece.size[2] / 2), max(piece.size) * random.uniform(0.9, 1.8))
