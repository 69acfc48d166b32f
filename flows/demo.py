"""The photographs of ``densemask demo``: those of scikit-image's wheel that show classes of PASCAL VOC."""

from importlib import util
from pathlib import Path

from pipeline.errors import ConfigError

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "motorcycle_right.png", "rocket.jpg")


def write_photographs(folder: str) -> str:
    """Copies the photographs into the folder, where they are not there yet; the folder."""
    package = util.find_spec("skimage")
    if package is None or package.origin is None:
        raise ConfigError("the demo's photographs come with scikit-image: pip install 'densemask[demo]'")
    origin = Path(package.origin).parent / "data"
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        if not (target / name).exists():
            (target / name).write_bytes((origin / name).read_bytes())
    return folder
