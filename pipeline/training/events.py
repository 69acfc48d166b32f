"""A training's curves as TensorBoard event files, where TensorBoard is installed and the output is a local folder."""

from importlib import util
from typing import Any

from pipeline import storage


class Events:
    """Writes each epoch's numbers into OUT/tensorboard."""

    def __init__(self, output: str) -> None:
        self._folder = storage.join(output, "tensorboard")
        self._wanted = util.find_spec("tensorboard") is not None and not storage.is_remote(output)
        self._writer: Any = None

    def add(self, row: dict[str, Any], classes: tuple[str, ...]) -> None:
        """One row of the history."""
        if not self._wanted:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self._folder, purge_step=row["step"])
        named = {"loss": row["loss"], "learning rate": row["lr"], "validation/mIoU": row.get("miou")}
        named |= {f"IoU/{name}": iou for name, iou in zip(classes, row.get("iou") or [], strict=False)}
        for name, value in named.items():
            if value is not None:
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()
