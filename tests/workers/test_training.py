from pathlib import Path

from pipeline import weights
from pipeline.training.loop import Progress
from tests.pipeline.test_training import job_on, write_dataset
from workers import training
from workers.cluster import Resources


def test_two_processes_train_one_network(ray_cluster: Resources, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data")
    job = job_on(dataset, tmp_path / "out", epochs=2)
    shown: list[Progress] = []
    trained = training.distributed(job, 2, False, shown.append)
    assert trained.epochs == 2 and trained.miou is not None
    assert [progress.step for progress in shown] == [1, 2]
    assert len(shown[-1].history) == 2
    assert weights.notes((tmp_path / "out" / "model.safetensors").read_bytes()) is not None
