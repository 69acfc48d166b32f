"""The furniture of the rendered rooms is sorted as VOC sorts it, and stands as people put it."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.rooms import furniture, scenes
from tests.benchmarks.rooms.furniture import KINDS, VOC, Piece


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("armchair", "chair"),
        ("wheelchair", None),
        ("coffee table", "low table"),
        ("round table", "diningtable"),
        ("table tennis", None),
        ("convertible sofa bz", None),
        ("corner sofa", "sofa"),
        ("apple imac 2004", "tvmonitor"),
        ("laptop", None),
        ("wine bottle", "bottle"),
    ],
)
def test_pieces_are_sorted_by_name(name: str, kind: str | None) -> None:
    assert furniture.kind_of(name) == kind


def test_a_library_is_unpacked_and_read(tmp_path: Path) -> None:
    catalogue = """
id#1=a
name#1=Oak table
model#1=/models/table.obj
width#1=120
depth#1=80
height#1=75
modelRotation#1=1 0 0 0 1 0 0 0 1
name#2=Ficus
model#2=/models/table.obj
width#2=275
depth#2=283
height#2=500
name#3=Door
model#3=/models/door.obj
"""
    with zipfile.ZipFile(tmp_path / "one.sh3f", "w") as packed:
        packed.writestr("PluginFurnitureCatalog.properties", catalogue)
        packed.writestr("models/table.obj", "v 0 0 0\n")
    (piece,) = furniture.unpack(tmp_path, tmp_path / "out")  # the ficus is a tree
    assert (piece.kind, piece.size, piece.class_id) == ("diningtable", (1.2, 0.8, 0.75), VOC.index("diningtable"))
    assert piece.turn == (1, 0, 0, 0, 1, 0, 0, 0, 1) and piece.model.read_text() == "v 0 0 0\n"


def pieces() -> scenes.Furniture:
    return scenes.Furniture([Piece(kind, kind, Path(kind), (1.4, 0.8, 0.7), None) for kind in KINDS])


def test_chairs_stand_around_the_table_and_face_it() -> None:
    chairs = 0
    for seed in range(50):
        scene = scenes.dining(pieces(), np.random.default_rng(seed))
        table, *others = scene.placed
        assert table.piece.kind == "diningtable" and table.at == (0, 0, 0)
        for placed in others:
            if placed.piece.kind != "chair":
                continue
            turned = np.deg2rad(placed.angle)
            faces, at = np.array([np.sin(turned), -np.cos(turned)]), np.array(placed.at[:2])
            assert 0.4 < np.hypot(*at) < 1.4 and faces @ at < 0
            chairs += 1
    assert chairs > 100


def test_every_plan_is_drawn_and_the_same_seed_draws_the_same_room() -> None:
    shown = set()
    for seed in range(60):
        scene, again = (scenes.draw(pieces(), np.random.default_rng(seed)) for _ in range(2))
        assert scene == again and scene.reach > 0 and all(placed.grown > 0 for placed in scene.placed)
        shown |= {placed.piece.kind for placed in scene.placed}
    assert shown >= {"diningtable", "chair", "sofa", "tvmonitor", "pottedplant", "bottle"}
