from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config import Config, Evaluation, Execution, LabelJob, Recipe, Source
from pipeline.errors import AbsentError, ConfigError
from pipeline.job_files import load
from pipeline.validation import checked

SHA = "a" * 64
MINIMAL = "source: /images\noutput: /masks\n"


def job(tmp_path: Path, text: str | bytes, **overrides: Any) -> LabelJob:
    path = tmp_path / "job.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(LabelJob, str(path), overrides)


def fingerprint(content: dict[str, Any], sha: str = SHA) -> str:
    return checked(Recipe, content, "the test").fingerprint(sha)


def test_a_job_needs_two_lines(tmp_path: Path) -> None:
    found = job(tmp_path, MINIMAL)
    assert (found.source.location, found.output) == ("/images", "/masks")
    assert found == LabelJob(source=Source(location="/images"), output="/masks")


def test_a_job_needs_no_file() -> None:
    assert load(LabelJob, None, {"source": {"location": "a"}, "output": "b"}).source.location == "a"
    with pytest.raises(ConfigError, match=r"^the command line: 'output' is missing; the command line: 'source' is"):
        load(LabelJob, None, {})


def test_a_whole_job(tmp_path: Path) -> None:
    found = job(
        tmp_path,
        """
        source: {location: "s3://bucket/voc", layout: voc, split: val}
        output: s3://bucket/out/
        recipe:
          front_end: {name: deeplab_v3_mobilenet_v2, weights: w.safetensors}
          back_end: {name: densecrf, parameters: {iterations: 5}}
          max_side: 512
        evaluation: {void: 11}
        execution: {shard_size: 50, max_failure_rate: 0.5}
    """,
    )
    assert found.output == "s3://bucket/out"
    assert found.recipe.back_end.parameters["iterations"] == 5
    assert found.recipe.back_end.parameters["bilateral_xy_std"] == 67.0  # the others are filled in
    assert (found.evaluation.void, found.execution.shard_size, found.source.split) == (11, 50, "val")


@pytest.mark.parametrize(
    ("written", "least", "most"),
    [("8", 8, 8), ("{min: 2, max: 32}", 2, 32), ("{max: 4}", 1, 4), ("{min: 3}", 3, None), ("{}", 1, None)],
)
def test_refiners_are_a_number_or_bounds(tmp_path: Path, written: str, least: int, most: int | None) -> None:
    refiners = job(tmp_path, f"{MINIMAL}execution: {{refiners: {written}}}").execution.refiners
    assert (refiners.min, refiners.max) == (least, most)


def test_the_command_line_lies_over_the_file(tmp_path: Path) -> None:
    text = MINIMAL + "recipe: {back_end: {name: densecrf, parameters: {iterations: 5, spatial_std: 2}}, max_side: 64}"
    found = job(
        tmp_path,
        text,
        source={"location": None, "layout": "voc"},
        output="/elsewhere/",
        recipe={"front_end": {"name": "deeplab_v3_mobilenet_v2", "weights": None}, "back_end": {"name": None}},
        execution={"shard_size": None},
    )
    assert found.source == Source(location="/images", layout="voc")
    assert found.output == "/elsewhere"
    assert found.recipe.front_end.name == "deeplab_v3_mobilenet_v2"
    assert found.recipe.max_side == 64 and found.recipe.back_end.parameters["spatial_std"] == 2.0
    assert found.execution == Execution()


@pytest.mark.parametrize("text, message", [
    ("exeuction: {}", "unknown key 'exeuction'; did you mean 'execution'?"),
    ("execution: {shard_sze: 3}", "unknown key 'execution.shard_sze'; did you mean 'shard_size'?"),
    ("recipe: {back_end: {nam: densecrf}}", "unknown key 'recipe.back_end.nam'; did you mean 'name'?"),
    ("evaluation: {zzz: 3}", "unknown key 'evaluation.zzz'; known here: void, boundary_width"),
    ("execution: {shard_size: 0}", "execution.shard_size = 0: Input should be greater than or equal to 1"),
    ("execution: {refiners: 0}", "execution.refiners = 0: a number from 1 on is needed, or a mapping such as {min"),
    ("execution: {refiners: many}", "execution.refiners = 'many': a number from 1 on is needed"),
    ("execution: {refiners: {min: 0}}", "execution.refiners.min = 0: Input should be greater than or equal to 1"),
    ("execution: {refiners: {min: 4, max: 2}}", "execution.refiners = {'min': 4, 'max': 2}: max = 2 is below min = 4"),
    ("execution: {refiners: {mx: 2}}", "unknown key 'execution.refiners.mx'; did you mean 'max'?"),
    ("execution: {shard_size: many}", "execution.shard_size = 'many': Input should be a valid integer"),
    ("recipe: {max_side: 31}", "recipe.max_side = 31: Input should be greater than or equal to 32"),
    ("evaluation: {void: 256}", "evaluation.void = 256: Input should be less than or equal to 255"),
    ("recipe: 3", "recipe = 3: a mapping of keys to values is needed"),
    ("recipe: {front_end: {name: }}", "recipe.front_end.name = None: Input should be a valid string"),
    ("recipe: {back_end: {name: }}", "recipe.back_end.name = None: Input should be a valid string"),
    ("recipe: {back_end: [densecrf]}", "recipe.back_end = ['densecrf']: a mapping of keys to values is needed"),
    ("3: x", "3 = 3: Keys should be strings"),
])  # fmt: skip
def test_a_mistake_in_a_job_file_names_the_file_the_key_and_the_way_out(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        job(tmp_path, MINIMAL + text)
    assert str(caught.value).startswith(f"{tmp_path}/job.yaml: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text, message", [
    ("back_end: densecfr", "unknown back end 'densecfr'; did you mean 'densecrf'? known: argmax, densecrf"),
    ("back_end: {parameters: {iteratons: 3}}",
     "the parameters of back end densecrf: unknown key 'iteratons'; did you mean 'iterations'?"),
    ("back_end: {parameters: {iterations: 0}}",
     "the parameters of back end densecrf: iterations = 0: Input should be greater than or equal to 1"),
    ("back_end: {parameters: {normalization: both}}",
     "the parameters of back end densecrf: normalization = 'both': Input should be 'symmetric', 'before', "),
    ("back_end: {parameters: [1]}", "the parameters of back end densecrf: [1]: a mapping of keys to values is needed"),
    ("back_end: {name: argmax, parameters: {iterations: 3}}",
     "the parameters of back end argmax: unknown key 'iterations'; there are none here"),
])  # fmt: skip
def test_a_mistake_in_a_back_end_names_what_it_has(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        job(tmp_path, MINIMAL + f"recipe: {{{text}}}")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("text, message", [
    ("source: {locaton: /x}\noutput: /y", "unknown key 'source.locaton'; did you mean 'location'?"),
    ("source: ['/x']\noutput: /y", "source = ['/x']: a mapping of keys to values is needed"),
    ("source: ''\noutput: /y", "source.location = '': a folder, list, .tar, .parquet or URL is needed"),
    ("source: /x\noutput: ' '", "output = ' ': an output folder or URL is needed"),
    ("source: {location: /x, layout: foldr}\noutput: /y", "source.layout = 'foldr': Input should be 'auto', 'folder'"),
])  # fmt: skip
def test_a_source_and_an_output_are_checked(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        job(tmp_path, text)
    assert message in str(caught.value)


@pytest.mark.parametrize("text, message", [
    ("source: /x\n\toutput: /y", "is not YAML: found character '\\t' that cannot start any token in line 2"),
    ("source: '/x", "is not YAML: found unexpected end of stream in line 1"),
    (b"source: /x\noutput: \xff\xff", "is not YAML: "),
    (b"source: \x00", "is not YAML: unacceptable character #x0000"),
    ("- source", "holds no mapping; a job starts with 'source:' and 'output:'"),
    ("just text", "holds no mapping"),
    ("!!python/object/apply:os.getcwd []", "is not YAML: could not determine a constructor"),
])  # fmt: skip
def test_a_file_that_is_no_job_is_one_plain_error(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        job(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/job.yaml {message}") and "\n" not in str(caught.value)


def test_an_absent_job_file_is_absent(tmp_path: Path) -> None:
    with pytest.raises(AbsentError, match=r"cannot read .*/none.yaml: it does not exist"):
        load(LabelJob, str(tmp_path / "none.yaml"), {})


def test_what_is_shown_of_a_value_is_short(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        job(tmp_path, MINIMAL + f"recipe: [{', '.join(map(str, range(10_000)))}]")
    assert len(str(caught.value)) < 300


def test_a_wrong_part_of_the_file_is_not_hidden_by_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="recipe = 'densecrf': a mapping"):
        job(tmp_path, MINIMAL + "recipe: densecrf", recipe={"back_end": {"name": "argmax"}})


def test_a_job_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Recipe().max_side = 5  # type: ignore[misc]


ALTERED: list[dict[str, Any]] = [
    {"front_end": "deeplab_v3_mobilenet_v2"},
    *({"front_end": {name: value}} for name, value in {
        "scales": [1, 0.5], "flip": True, "window": 512, "overlap": 0.5}.items()),
    {"back_end": "argmax"},
    {"max_side": 512},
    {"max_pixels": 5},
    *({"back_end": {"parameters": {name: value}}} for name, value in {
        "iterations": 5, "spatial_std": 2, "spatial_weight": 2, "bilateral_xy_std": 60, "bilateral_rgb_std": 4,
        "bilateral_weight": 5, "normalization": "after", "keep_label_above": 0.1}.items()),
]  # fmt: skip


def test_every_field_of_the_recipe_is_in_these_tests() -> None:
    assert {name for content in ALTERED for name in content} == set(Recipe.model_fields)


@pytest.mark.parametrize("content", ALTERED)
def test_the_fingerprint_changes_with_every_field_of_the_recipe(content: dict[str, Any]) -> None:
    assert fingerprint(content) != fingerprint({})


def test_no_two_recipes_share_a_fingerprint() -> None:
    assert len({fingerprint(content) for content in ALTERED}) == len(ALTERED)


def test_the_fingerprint_changes_with_the_weights() -> None:
    assert fingerprint({}, "a" * 64) != fingerprint({}, "b" * 64)


def test_the_fingerprint_changes_with_the_revision_of_rows_and_scores_with_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, scores = fingerprint({}), Recipe().scores_fingerprint(SHA)
    monkeypatch.setattr("pipeline.config.REVISION", 0)
    assert fingerprint({}) != rows and Recipe().scores_fingerprint(SHA) == scores
    monkeypatch.setattr("pipeline.config.SCORES_REVISION", 0)
    assert Recipe().scores_fingerprint(SHA) != scores


@pytest.mark.parametrize("content", [
    {"front_end": {"name": "upernet_lite", "weights": "/elsewhere/w.safetensors"}},
    {"front_end": "upernet_lite"},
    {"front_end": {"scales": [1], "flip": False, "window": None, "overlap": 0.25}},
    {"back_end": "densecrf"},
    {"back_end": {"name": "densecrf", "parameters": {"bilateral_xy_std": 67, "iterations": 10}}},
    {"max_side": 1024},
])  # fmt: skip
def test_the_fingerprint_does_not_change_with_how_a_recipe_is_written(content: dict[str, Any]) -> None:
    assert fingerprint(content) == fingerprint({})


def test_the_fingerprint_has_no_part_of_execution_or_evaluation(tmp_path: Path) -> None:
    other = "execution: {shard_size: 7, refiners: 3}\nevaluation: {void: 11, boundary_width: 2}\n"
    assert job(tmp_path, MINIMAL + other).recipe.fingerprint(SHA) == job(tmp_path, MINIMAL).recipe.fingerprint(SHA)


def test_a_fingerprint_is_16_hex_digits_and_the_same_on_every_machine() -> None:
    """A change of this number labels every archive anew: let it be meant."""
    assert fingerprint({}) == "93ce5222eeb95fec"


@pytest.mark.parametrize("model", [Source, Recipe, Evaluation, Execution, LabelJob])
def test_every_part_of_a_job_is_frozen_and_forbids_what_it_does_not_know(model: type[Config]) -> None:
    assert model.model_config["frozen"] and model.model_config["extra"] == "forbid"


@pytest.mark.parametrize("key", ["source.location", "source.truth", "output", "recipe.front_end.weights"])
@pytest.mark.parametrize("location", ["s3://me:S3CRET@bucket/x", "https://host/x.csv?X-Amz-Signature=S3CRET"])
def test_credentials_in_a_job_are_refused_and_not_repeated(key: str, location: str) -> None:
    content: dict[str, Any] = {"source": {"location": "/in"}, "output": "/out", "recipe": {"front_end": {}}}
    place: Any = content
    *above, last = key.split(".")
    for name in above:
        place = place[name]
    place[last] = location
    with pytest.raises(ConfigError, match=f"{key} = .*it carries credentials; put them into the environment") as caught:
        load(LabelJob, None, content)
    assert "S3CRET" not in str(caught.value)
    with pytest.raises(ValidationError) as raw:  # as Prefect checks a flow's parameters
        LabelJob.model_validate(content)
    assert "S3CRET" not in str(raw.value)
