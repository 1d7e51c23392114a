"""EuroSAT's shipped split: `python -m taskgrid.data.published.eurosat_split`.

EuroSAT has no official split, and the papers drew theirs without a seed: 270 validation and 270
test images of each class, the rest for training (Ilharco et al. 2023). This one has the same sizes
and depends on nothing but a seed and the names of the 27,000 original files: the images of a class
are ordered by the SHA-256 of `seed/name`, the first 270 test, the next 270 select.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

SEED = 0

HELD_OUT = 270

IMAGES = {
    "AnnualCrop": 3000,
    "Forest": 3000,
    "HerbaceousVegetation": 3000,
    "Highway": 2500,
    "Industrial": 2500,
    "Pasture": 2000,
    "PermanentCrop": 2500,
    "Residential": 3000,
    "River": 2500,
    "SeaLake": 3000,
}
"""Images of each class folder; the files of a class are numbered from 1."""


def eurosat_split() -> dict[str, Any]:
    """Return the split list, as `resources/splits/eurosat.json` holds it."""
    val: list[str] = []
    test: list[str] = []
    for folder, count in IMAGES.items():
        names = [f"{folder}/{folder}_{number}.jpg" for number in range(1, count + 1)]
        drawn = sorted(names, key=lambda name: hashlib.sha256(f"{SEED}/{name}".encode()).digest())
        test += drawn[:HELD_OUT]
        val += drawn[HELD_OUT : 2 * HELD_OUT]
    return {
        "rule": f"{HELD_OUT} test and {HELD_OUT} validation images per class, "
        f"in the order of sha256('{SEED}/<class>/<file>')",
        "images": IMAGES,
        "test": sorted(test),
        "val": sorted(val),
    }


def eurosat_split_text() -> str:
    """Return the split list as the text of its file."""
    return json.dumps(eurosat_split(), indent=0) + "\n"


if __name__ == "__main__":
    print(eurosat_split_text(), end="")
