"""Links between the documents lead somewhere, and the index of decisions is whole."""

import re
from pathlib import Path

import pytest

from tests.docs.documents import DOCUMENTS, FENCE, ROOT

DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
ALL = [*DOCUMENTS, *(ROOT / "docs" / "decisions").glob("*.md")]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of a text's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", ALL, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match(r"\w+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (document.parent / place).resolve() if place else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_each_decision_has_a_number_of_its_own_and_is_in_the_index() -> None:
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert len(set(numbers)) == len(numbers) >= 12
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for number, path in zip(numbers, DECISIONS, strict=True):
        title = path.read_text().splitlines()[0]
        assert title.startswith(f"# {number}. ")
        assert f"| [{path.name[:4]}]({path.name}) | {title.removeprefix(f'# {number}. ')} |" in index
