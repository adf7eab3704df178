"""A page as a browser shows it, for tests on machines that have Chromium."""

import json
import shutil
import subprocess

import pytest

needed = pytest.mark.skipif(not shutil.which("chromium"), reason="no Chromium here")


def what_is_seen(page, script, folder):
    """What a script puts into the title of a page as JSON, run when the page, an HTML text, was loaded from the disk.

    folder: for files. A message on the browser's console is an error.
    """
    copy = folder / "page.html"
    copy.write_text(page + f"<script>window.addEventListener('load', async () => {{{script}}});</script>", "utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={folder}/profile", "--virtual-time-budget=10000", "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    messages = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # Snakemake's template of a report is warned of its style sheet.
    assert not [line for line in messages if "cdn.tailwindcss.com should not be used in production" not in line]
    return json.loads(done.stdout.split("<title>")[1].split("</title>")[0].replace("&amp;", "&"))
