"""VOC's training photographs and rendered rooms in one VOC folder, which the bundled weights are trained on:

    apt-get install sweethome3d-furniture libegl1; pip install vtk
    python -m tests.benchmarks.rooms /usr/share/sweethome3d/furniture ../shared runs/voc-rooms

The furniture is Scopia's, Kator Legaz's and the BlendSwap contributors' (CC BY 3.0, and CC0), of Sweet Home 3D's
libraries. Floors and walls are patches of the training photographs that hold no object.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from rich.progress import track

from pipeline import images
from tests.benchmarks.rooms import furniture, rendering, scenes

SIZE = 352, 264  # as large as the photographs
DRAWN = 1.5  # times that size, and made smaller


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("libraries", type=Path, help="the folder of the .sh3f files")
    parser.add_argument("shared", type=Path, help="the folder that holds data/voc")
    parser.add_argument("output", type=Path)
    parser.add_argument("--rooms", type=int, default=400)
    arguments = parser.parse_args()
    voc, output = arguments.shared / "data/voc", arguments.output
    names = (voc / "ImageSets/Segmentation/train.txt").read_text().split()
    for folder, ending in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        (output / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(voc / folder / f"{name}.{ending}", output / folder)
    rooms = [f"room_{seed:04d}" for seed in range(arguments.rooms)]
    with tempfile.TemporaryDirectory() as unpacked:
        pieces = scenes.Furniture(furniture.unpack(arguments.libraries, Path(unpacked)))
        stage = rendering.Stage()
        for seed, name in enumerate(track(rooms, "rendering rooms")):
            random = np.random.default_rng(seed)
            upright = random.random() < 0.25
            width, height = SIZE[::-1] if upright else SIZE
            drawn = round(width * DRAWN), round(height * DRAWN)
            rgb, ids = stage.draw(scenes.draw(pieces, random), lambda r: patch(voc, names, r), drawn, random)
            photograph(rgb, (width, height), random).save(output / "JPEGImages" / f"{name}.jpg", quality=85)
            truth = images.enlarge_labels(ids, (height, width))
            (output / "SegmentationClass" / f"{name}.png").write_bytes(images.encode_mask(truth))
    listed = output / "ImageSets/Segmentation/train.txt"
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text("\n".join([*names, *rooms]) + "\n")


def patch(voc: Path, names: list[str], random: np.random.Generator) -> np.ndarray:
    """A square of a photograph that holds no object, mirrored so that it can be repeated, or else one colour."""
    for _ in range(20):
        name, side = names[int(random.integers(len(names)))], int(random.integers(48, 140))
        truth = np.array(Image.open(voc / "SegmentationClass" / f"{name}.png"))
        height, width = truth.shape
        if min(height, width) <= side:
            continue
        top, left = int(random.integers(height - side)), int(random.integers(width - side))
        if not truth[top : top + side, left : left + side].any():
            with Image.open(voc / "JPEGImages" / f"{name}.jpg") as whole:
                piece = whole.convert("RGB").crop((left, top, left + side, top + side)).resize((256, 256))
            half = np.concatenate([np.array(piece), np.array(piece)[:, ::-1]], 1)
            return np.concatenate([half, half[::-1]])
    return np.full((8, 8, 3), random.integers(60, 230, 3), np.uint8)


def photograph(rgb: np.ndarray, size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """A rendering as a camera would give it: softened, tinted, brighter or darker, with noise."""
    image = Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS)
    if random.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 0.9)))
    tinted = np.asarray(image) / 255 * (1 - random.uniform(0, 0.15, 3))
    exposed = 255 * tinted ** random.uniform(0.7, 1.3) + random.normal(0, random.uniform(1, 7), tinted.shape)
    return Image.fromarray(np.clip(exposed, 0, 255).astype(np.uint8))


main()
