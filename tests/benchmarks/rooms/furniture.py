"""The pieces of Sweet Home 3D's furniture libraries (.sh3f), sorted into VOC's classes and into what stands around."""

import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from pipeline.classes import CLASS_SETS

VOC = CLASS_SETS["VOC-21"]
TALLEST = 2.2  # metres; trees are no potted plants
TABLE_HEIGHTS = 0.6, 1.15
MAX_MODEL_BYTES = 6_000_000

# VOC's guidelines: armchairs are chairs, coffee tables and desks are no dining tables, laptops no monitors.
KINDS = {
    "bottle": r"((wine|beer|baby) )?bottle",
    "tvmonitor": r"tv( 16:9)?|wall flat tv|apple imac.*",
    "sofa": r".*\b(sofa|couch)\b(?! bz).*",
    "chair": r"(?!.*(wheel|rocking|deck|beach|relax|sofa)).*chair.*",
    "diningtable": r"((oak|round|black|glass|wooden( teak| alder)?|cafe|folding|rattan|children) )?table"
    r"( with tablecloth| on trestles)?",
    "pottedplant": r"((little|indoor|decorative|spider|succulent) )?plant( box)?|ficus|bonsai tree|cactus|flowers"
    r"|flower box",
    "car": r"suv|smart car|seat leon|car model",
    "motorbike": r"motorbike|scooter",
    "low table": r".*(coffee table|ottoman).*|bedside table.*",
    "cabinet": r".*(cabinet|dresser|sideboard|bookcase|shelves|shelf|fridge|cupboard|chest|buffet|wardrobe|oven"
    r"|cooker|piano|fireplace|radiator).*|.*bed|desk",
    "lamp": r".*(floor|desk|table|pedestal).*lamp.*|lamp.*",
    "small": r"(vase|book|plate|cup|mug|bowl|teapot|basket|fruit|telephone|clock|candle).*",
}


class Piece(NamedTuple):
    """One piece: its model, its width, depth and height in metres, the turn that sets the model upright, row by row."""

    kind: str
    name: str
    model: Path
    size: tuple[float, float, float]
    turn: tuple[float, ...] | None

    @property
    def class_id(self) -> int:
        """Its class in VOC's order, 0 for what only stands around."""
        return VOC.index(self.kind) if self.kind in VOC else 0


def unpack(libraries: Path, folder: Path) -> list[Piece]:
    """The pieces of all .sh3f files of a folder, their models laid out below the other one."""
    pieces = []
    for library in sorted(libraries.glob("*.sh3f")):
        root = folder / library.stem
        with zipfile.ZipFile(library) as packed:
            packed.extractall(root)
        pieces += _pieces(root)
    return pieces


def kind_of(name: str) -> str | None:
    """The kind of a piece by its name in the catalogue."""
    return next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, name)), None)


def _pieces(root: Path) -> list[Piece]:
    entries: dict[str, dict[str, str]] = {}
    for line in (root / "PluginFurnitureCatalog.properties").read_text("latin1").splitlines():
        if found := re.match(r"(\w+)#(\d+)=(.*)", line):
            entries.setdefault(found[2], {})[found[1]] = found[3].strip()
    pieces = []
    for entry in entries.values():
        kind, model = kind_of(entry.get("name", "").lower()), root / entry.get("model", "").lstrip("/")
        if kind is None or model.suffix != ".obj" or model.stat().st_size > MAX_MODEL_BYTES:
            continue
        width, depth, height = (float(entry[key]) / 100 for key in ("width", "depth", "height"))
        low, high = TABLE_HEIGHTS
        if height > TALLEST or (kind == "diningtable" and (width < low or not low <= height <= high)):
            continue
        turn = tuple(float(value) for value in entry["modelRotation"].split()) if "modelRotation" in entry else None
        pieces.append(Piece(kind, entry["name"].lower(), model, (width, depth, height), turn))
    return pieces
