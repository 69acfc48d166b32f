"""What the Prefect dashboard shows of a comparison: a table of classes, the numbers, the most changed images."""

import numpy as np
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from pipeline import comparison_report, storage
from pipeline.comparison import Comparison
from pipeline.gallery import data_uri
from pipeline.pages import number, percent
from pipeline.report import read_table

PICTURES = 4
GAP = 4  # pixels between the old overlay and the new


def publish(output: str, found: Comparison, reasons: list[str]) -> None:
    """Shows a comparison, and why its recipe may not pass the gate."""
    place = comparison_report.folder(output, found.old, found.recipe)
    rows = read_table(storage.join(place, "per_class.parquet")).to_pylist()
    measures = ("old_iou", "iou", "churn")
    table = [
        {"class": row["name"]} | {name: number(row[name], 4) for name in measures}
        for row in rows
        if row["old_pixels"] or row["pixels"]
    ]
    if table:
        create_table_artifact(key="churn", table=table, description=f"Recipe {found.old} and {found.recipe} by class")
    create_markdown_artifact(
        key="comparison", markdown=markdown(found, reasons), description=f"Recipe {found.recipe} against {found.old}"
    )
    leading = comparison_report.most_changed(output, found.old, found.recipe, PICTURES)
    for index, one in enumerate(comparison_report.beside(output, found.old, found.recipe, leading), 1):
        if one.pictures is not None:
            old, new = one.pictures
            gap = np.full((old.shape[0], GAP, 3), 255, np.uint8)
            create_image_artifact(
                key=f"changed-{index}",
                image_url=data_uri(np.concatenate([old, gap, new], axis=1)),
                description=f"{one.row['image_id']}: churn {percent(one.row['churn'])}, old beside new",
            )


def markdown(found: Comparison, reasons: list[str]) -> str:
    """The comparison as a page of the dashboard."""
    verdict = "; ".join(reasons) or ("passed" if found.missing == 0 else f"{found.missing} images have no new row yet")
    rows = [
        ("mIoU, old -> new", f"{number(found.old_miou)} -> {number(found.miou)}"),
        ("over classes, of images", f"{found.classes}, {found.with_truth}"),
        ("churn", percent(found.churn, 2)),
        ("images changed, of those compared", f"{found.changed} of {found.compared}"),
        ("failures, old -> new", f"{found.old_failed} -> {found.failed}"),
        ("masks lost", str(found.masks_lost)),
        ("gate", verdict),
    ]
    lines = [
        f"# Recipe `{found.recipe}` against `{found.old}`",
        "",
        "| measure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
        f"The whole comparison: `{found.report}`",
    ]
    return "\n".join(lines)
