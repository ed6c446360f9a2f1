"""Takes the picture of a report that README.md shows, in headless Chromium.

    make demo
    .venv/bin/python docs/take_picture.py

The picture is of the first screen of the demo report, light, in as few colors as it needs.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

TO = Path(__file__).parent / "images" / "report.png"
WIDTH, HEIGHT = 1280, 985  # pixels of the window
COLORS = 128


def main() -> None:
    """Take it and write it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--home", type=Path, default=Path(".cuvee"))
    options.add_argument("--study", default="quickstart")
    options.add_argument("--height", type=int, default=HEIGHT)
    given = options.parse_args()
    page = given.home / "studies" / given.study / "report.html"
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        window = f"--window-size={WIDTH},{given.height}"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", window]
        wait = "--virtual-time-budget=5000"  # ms, for what scripts draw
        subprocess.run(
            ["chromium", *flags, wait, f"--screenshot={shot}", page.resolve().as_uri()], check=True
        )
        TO.parent.mkdir(exist_ok=True)
        picture = Image.open(shot).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
        picture.save(TO, optimize=True)


if __name__ == "__main__":
    main()
