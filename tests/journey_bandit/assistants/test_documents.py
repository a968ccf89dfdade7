"""Pages of the documentation, as an assistant finds and reads them."""

from pathlib import Path

import pytest

from bandit.errors import NotFound
from journey_bandit.assistants import documents

DOCS = Path(__file__).parents[3] / "docs"


def test_the_pages_are_those_of_the_site_but_generated_references() -> None:
    named = set(documents.pages())
    assert {"guides/assistants", "explanation/cost", "tutorials/try", "glossary", "architecture"} <= named
    assert not any(name.startswith(("reference/", "_")) for name in named)
    assert all(file.is_relative_to(DOCS) for file in documents.pages().values())


def test_sections_have_all_of_a_page() -> None:
    for page, file in documents.pages().items():
        every = documents.sections(page)
        text = file.read_text(encoding="utf-8")
        assert "".join("".join(one.text.split()) for one in every) == "".join(text.split()), page
    headings = [one.heading for one in documents.sections("guides/monitoring")]
    assert headings[:3] == ["Monitoring", "Scrape", "What to look at"]


def test_a_section_is_read_by_its_heading_and_without_one_the_others_are_named() -> None:
    assert documents.section("guides/monitoring", "scrape ").startswith("## Scrape\n")
    first = documents.section("guides/monitoring", "")
    assert first.startswith("# Monitoring\n")
    assert 'Other sections of guides/monitoring: "Scrape", "What to look at"' in first
    with pytest.raises(NotFound, match=r"section: guides/monitoring has no section 'Nothing' → one of \"Scrape\""):
        documents.section("guides/monitoring", "Nothing")


def test_a_long_section_is_cut_and_a_comment_in_a_program_is_no_heading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "guides").mkdir()
    (tmp_path / "guides" / "long.md").write_text("# Long\n" + "x" * 7_000, encoding="utf-8")
    program = "# Page\n```sh\n# look first\nls\n```\n## Next\ntext\n"
    (tmp_path / "guides" / "page.md").write_text(program, encoding="utf-8")
    (tmp_path / "glossary.md").write_text("# Glossary\n", encoding="utf-8")
    (tmp_path / "architecture.md").write_text("# Architecture\n", encoding="utf-8")
    monkeypatch.setattr(documents, "folder", lambda: tmp_path)
    assert "(cut: 1,007 characters more; the resource of the page has all)" in documents.section("guides/long", "")
    assert [one.heading for one in documents.sections("guides/page")] == ["Page", "Next"]
    assert "# look first" in documents.section("guides/page", "page")


@pytest.mark.parametrize(
    ("words", "page", "heading"),
    [
        ("how do I pause a nudge", "guides/operations", "Stop a nudge"),
        ("scrape metrics prometheus", "guides/monitoring", "Scrape"),
        ("ramp holdout", "guides/operations", "Ramp and holdout"),
        ("what happens when a webhook fails", "guides/webhooks", "Failures"),
    ],
)
def test_what_somebody_asks_is_among_what_is_found(words: str, page: str, heading: str) -> None:
    found = documents.search(words)
    assert (page, heading) in [(one.page, one.heading) for one in found]
    assert len(found) == 6
    assert all(0 < len(one.text) <= 242 for one in found)


def test_words_that_are_nowhere_find_nothing() -> None:
    assert documents.search("xyzzyplugh qqqq") == []
    assert documents.search("") == []
