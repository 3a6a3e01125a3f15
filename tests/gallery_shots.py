"""Screenshots of the gallery for a person to look at: phone and desktop, light and dark.

python tests/gallery_shots.py -o DIR [LAYER...]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import chromium

from jaccomp.cli import main

LAYERS = ("softmax", "layernorm", "causal_attention", "lstm_cell", "conv2d")
SIZES = {"phone": (390, 844), "desktop": (1440, 900)}


def shots(layers: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as site:
        if main(["gallery", *layers, "-o", site]):
            sys.exit(1)
        browser = chromium.Browser()
        for size, (width, height) in SIZES.items():
            for theme in ("light", "dark"):
                browser.show(width, height, theme)
                for path in sorted(Path(site).glob("*.html")):
                    browser.open(path)
                    for whole in (False, True):
                        name = f"{path.stem}-{size}-{theme}{'-whole' if whole else ''}.png"
                        browser.picture(folder / name, whole=whole)
                        print(folder / name)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("layer", nargs="*", default=list(LAYERS))
    parser.add_argument("-o", "--output", default="gallery-shots", metavar="DIR", help="the folder: %(default)s")
    asked = parser.parse_args()
    missing = chromium.without_browser()
    if missing:
        sys.exit(f"gallery_shots: {missing}.")
    shots(asked.layer, Path(asked.output))
