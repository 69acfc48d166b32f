"""No document names a command or an option that the command line does not know."""

from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from flows.cli import app
from tests.docs.documents import DOCUMENTS, ROOT, commands, spans

CLI: Any = get_command(app)


def parse(arguments: list[str]) -> None:
    """Takes arguments apart as the command would, and does not run it. Raises for what it does not know."""
    name, *rest = arguments
    command = CLI.commands[name]
    command.make_context(name, rest)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_line_of_a_document_parses(document: Path) -> None:
    text = document.read_text()
    for arguments in [*commands(text), *(span for span in spans(text) if len(span) > 1)]:
        try:
            parse(arguments)
        except Exception as error:
            raise AssertionError(f"densemask {' '.join(arguments)}: {error!r}") from error
    assert {span[0] for span in spans(text)} <= set(CLI.commands)


def test_the_documents_have_command_lines() -> None:
    counts = {path.name: len(commands(path.read_text())) for path in DOCUMENTS if path.parent.name == "docs"}
    assert counts["quickstart.md"] >= 5 and counts["guide.md"] >= 5 and counts["tutorial.md"] >= 8
    named = {arguments[0] for path in DOCUMENTS for arguments in commands(path.read_text())}
    assert named == set(CLI.commands) - {"demo"}  # which make runs


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("densemask label a b --bogus", "--bogus"),
        ("densemask export out", "format"),
        ("densemask show out --limit many", "integer"),
        ("densemask promote out extra", "extra"),
        ("densemask dance", "dance"),
    ],
)
def test_a_line_that_the_command_would_refuse_is_found(line: str, problem: str) -> None:
    for text in (f"    {line}\n", f"```sh\n{line}\n```\n"):
        (arguments,) = commands(text)
        with pytest.raises(Exception) as refused:
            parse(arguments)
        assert problem in str(refused.value) + repr(refused.value.__dict__)
    assert spans(f"Say `{line}`.") == [arguments]
