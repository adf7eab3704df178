"""docs/datasets.md says what the table of datasets says."""

import csv
import re

from processes import ROOT

from vit_plasticity.data.registry import TABLE

PAGE = (ROOT / "docs" / "datasets.md").read_text()


def datasets():
    """The rows of the table, one list per dataset: its own row and those of its further files."""
    groups = []
    with TABLE.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["name"]:
                groups.append([])
            groups[-1].append(row)
    return groups


def line(rows):
    """The line of the page for one dataset."""
    row = rows[0]
    name = row["name"].replace("{1|2|3|4|5}", "{severity}")
    name = re.sub(r"\{[a-z_|]*\|[a-z_|]*\}", "{corruption}", name)
    sizes = [f"{int(row[split]):,}" if row[split] else "" for split in ("train", "val", "test")]
    drawn = "drawn" if row["file"] else "by catalog"
    split = " / ".join(size or "–" for size in sizes) if any(sizes) else drawn
    size = sum(int(r["bytes"] or 0) for r in rows) / 1e9
    where = "" if row["url"] else ", by you"
    download = f"{size:.2f} GB{where}" if row["file"] else "none"
    kinds = {r["checksum"].partition(":")[0] for r in rows if r["file"]}
    checksum = {"": "–", "md5": "MD5", "sha256": "SHA-256"}[kinds.pop() if kinds else ""]
    return f"| `{name}` | {row['classes'] or 'by catalog'} | {split} | {download} | {row['licence']} | {checksum} |"


def test_the_page_repeats_the_table_of_datasets():
    expected = [line(rows) for rows in datasets()]
    shown = [text for text in PAGE.splitlines() if text.startswith("| `")]
    assert shown == expected, "the table of docs/datasets.md should be:\n" + "\n".join(expected)


def test_the_page_names_every_corruption_and_every_count_of_images():
    words = " ".join(PAGE.split())
    for rows in datasets():
        for name in re.findall(r"[a-z]\w+(?=[|}])", rows[0]["name"]):
            assert re.search(rf"\b{name}\b", words), name
        for count in re.findall(r"the authors count ([\d,]+) images", rows[0]["note"]):
            assert re.search(rf"{rows[0]['name'].split('_')[1]} {count}\b", words), count


def test_every_download_has_a_published_checksum():
    assert all(row["checksum"] for rows in datasets() for row in rows if row["file"])
