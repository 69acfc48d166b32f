"""What cannot be run as asked ends in one plain line and exit code 2, before Ray or Prefect are looked for."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import typer

from flows.commands.ending import plain_errors
from tests.flows.conftest import Command
from tests.s3 import READER, S3


@pytest.fixture
def nowhere(environment: dict[str, str]) -> dict[str, str]:
    """A shell in which any attempt to reach Ray or Prefect would fail in its own way."""
    return environment | {"RAY_ADDRESS": "127.0.0.1:1", "PREFECT_API_URL": "http://127.0.0.1:1/api"}


def refused(densemask: Command, env: dict[str, str], *arguments: str) -> str:
    ended = densemask(*arguments, "--json", env=env)
    assert ended.code == 2, ended
    *_, line = ended.err.splitlines()
    assert "Traceback" not in ended.err
    assert line == f"densemask: {' '.join(ended.json['error'].split())}"
    return line


def test_a_source_without_images(densemask: Command, nowhere: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "notes.doc").write_text("no image")
    line = refused(densemask, nowhere, "label", str(tmp_path), str(tmp_path / "out"))
    assert f"no images in {tmp_path}" in line
    assert ".jpg" in line
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_not_there(densemask: Command, nowhere: dict[str, str], tmp_path: Path) -> None:
    assert str(tmp_path / "no") in refused(densemask, nowhere, "label", str(tmp_path / "no"), str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--front-end", "upernet_light"], "unknown front end 'upernet_light'; did you mean 'upernet_lite'?"),
        (["--back-end", "densecfr"], "unknown back end 'densecfr'; did you mean 'densecrf'?"),
        (["--front-end", "deeplab_v3_mobilenet_v2"], "has no bundled weights; name a .safetensors file with --weights"),
        (["--weights", "/nowhere/x.safetensors"], "/nowhere/x.safetensors: it does not exist"),
        (["--split", "val"], "split 'val' needs a VOC layout"),
    ],
)
def test_a_recipe_that_cannot_be(
    densemask: Command, nowhere: dict[str, str], photographs: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    assert said in refused(densemask, nowhere, "label", str(photographs), str(tmp_path / "out"), *arguments)
    assert not (tmp_path / "out").exists()


def test_weights_of_the_wrong_shape(
    densemask: Command, nowhere: dict[str, str], photographs: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "wrong.safetensors"
    safetensors.numpy.save_file({"classifier.weight": np.zeros((21, 128, 1, 1), np.float32)}, str(weights))
    arguments = ["label", str(photographs), str(tmp_path / "out"), "--weights", str(weights)]
    line = refused(densemask, nowhere, *arguments)
    assert "does not fit front end 'upernet_lite'" in line
    assert "trunk.stem.weight is missing" in line


def test_a_misspelt_key_in_the_job_file(
    densemask: Command, nowhere: dict[str, str], photographs: Path, tmp_path: Path
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(json.dumps({"source": str(photographs), "output": "out", "execution": {"shard_sise": 3}}))
    line = refused(densemask, nowhere, "label", "--job", str(job))
    assert "unknown key 'execution.shard_sise'; did you mean 'shard_size'?" in line


def test_no_such_bucket_and_no_permission(
    densemask: Command, nowhere: dict[str, str], s3: S3, photographs: Path, tmp_path: Path
) -> None:
    writer, reader = nowhere | s3.environment(), nowhere | s3.environment(READER)
    assert "s3://nosuchbucket" in refused(densemask, writer, "label", "s3://nosuchbucket/x", str(tmp_path / "out"))
    line = refused(densemask, reader, "label", str(photographs), f"{s3.url}/out")
    assert f"cannot write {s3.url}/out/recipes/" in line
    assert "no permission" in line


def test_credentials_are_refused_and_not_repeated(
    densemask: Command, nowhere: dict[str, str], photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text("uri\nhttps://host/a.jpg?X-Amz-Signature=S3CRET\n")
    output = tmp_path / "out"
    for source, target in (
        ("https://me:S3CRET@host/photographs", str(output)),
        ("https://host/list.csv?X-Goog-Signature=S3CRET", str(output)),
        (str(photographs), "s3://me:S3CRET@bucket/out"),
        (str(tmp_path / "list.csv"), str(output)),
    ):
        ended = densemask("label", source, target, "--json", "--debug", env=nowhere)
        assert ended.code == 2
        assert "credentials" in ended.json["error"]
        assert "S3CRET" not in ended.out + ended.err
    assert not output.exists()


def test_an_output_in_which_nothing_is_labelled(densemask: Command, nowhere: dict[str, str], tmp_path: Path) -> None:
    for command in (["show", str(tmp_path)], ["evaluate", str(tmp_path), "--json"]):
        ended = densemask(*command, env=nowhere)
        assert ended.code == 2
        assert ended.err.splitlines()[-1] == (
            f"densemask: {tmp_path} has no current recipe; label something into it first"
        )


@pytest.mark.parametrize("name", ["RAY_ADDRESS", "PREFECT_API_URL"])
def test_a_cluster_or_a_server_that_does_not_answer_is_named(
    densemask: Command, environment: dict[str, str], photographs: Path, tmp_path: Path, name: str
) -> None:
    address = {"RAY_ADDRESS": "127.0.0.1:1", "PREFECT_API_URL": "http://127.0.0.1:1/api"}[name]
    line = refused(densemask, environment | {name: address}, "label", str(photographs), str(tmp_path / "out"))
    assert f"{name}={address}" in line


def test_an_error_that_nobody_foresaw_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, plain_errors(debug=False, as_json=True):
        raise LookupError("line one\nline two")
    assert ended.value.exit_code == 1
    out, err = capsys.readouterr()
    assert err == "densemask: unexpected LookupError: line one line two; --debug shows where\n"
    assert "unexpected LookupError" in json.loads(out)["error"]
