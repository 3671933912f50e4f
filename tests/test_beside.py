# SPDX-License-Identifier: MIT
"""Reports that lie beside each other are linked, whichever was written first."""

from data.recipe.beside import write_page

PAGE = '<p>{}</p><nav id="beside"></nav><p>end</p>'


def test_pages_are_linked_in_both_directions(tmp_path):
    for name in ("compass", "dial & more"):
        write_page(tmp_path / name / "report.html", PAGE.format(name))
    first = (tmp_path / "compass" / "report.html").read_text()
    assert '<nav id="beside">Beside this: <a href="../dial%20%26%20more/report.html">dial &amp; more</a></nav>' in first
    assert first.startswith("<p>compass</p>")
    assert first.endswith("<p>end</p>")
    assert '<a href="../compass/report.html">compass</a>' in (tmp_path / "dial & more" / "report.html").read_text()
    write_page(tmp_path / "compass" / "report.html", PAGE.format("again"))  # as often as it is written
    assert (tmp_path / "compass" / "report.html").read_text().count("<a ") == 1


def test_what_is_no_page_of_ours_stays_as_it_is(tmp_path):
    other = tmp_path / "other" / "report.html"
    other.parent.mkdir()
    other.write_text("<p>theirs</p>")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.html").write_bytes("<p>früher</p>".encode("latin-1"))
    (tmp_path / "folder" / "report.html").mkdir(parents=True)
    write_page(tmp_path / "compass" / "report.html", PAGE.format("compass"))
    assert other.read_text() == "<p>theirs</p>"
    assert (tmp_path / "compass" / "report.html").read_text() == PAGE.format("compass")
