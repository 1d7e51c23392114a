"""Small tasks on disk, for the tests of data."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from taskgrid.config import TaskSpec

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_DATA = Path(
    os.environ.get("TASKGRID_SHARED_DATA", REPOSITORY.parent / "shared" / "data")
).resolve()
REAL_SETS = ("cifar10", "eurosat", "fashion_mnist", "gtsrb", "mnist")


def pixels(key, height=9, width=12):
    """An RGB image that no other key has."""
    return np.random.default_rng(key).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def spec(source, path=None, **fields):
    return TaskSpec(
        **{"name": "pets", "source": source, "path": str(path) if path else None, **fields}
    )


def image_folders(root, splits=("train", "test"), classes=("cat", "dog"), per_class=3):
    """``root/<split>/<class>/<n>.png``; the pixels differ everywhere."""
    key = 0
    for split in splits:
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(per_class):
                (folder / f"{number}.png").write_bytes(png(pixels(key)))
                key += 1
    return root


def archive(path, counts=None, classes=("cat", "dog"), grey=False, **replaced):
    """An .npz with ``classes.json`` beside it; a replaced array of None is left out."""
    arrays = {}
    for start, (split, count) in enumerate((counts or {"train": 20, "test": 6}).items()):
        images = np.stack([pixels(1000 * start + row, 8, 8) for row in range(count)])
        arrays[f"{split}_images"] = images[..., 0] if grey else images
        arrays[f"{split}_labels"] = np.arange(count) % len(classes)
        arrays[f"{split}_ids"] = np.array([f"{split}-{row}" for row in range(count)])
    arrays.update(replaced)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    (path.parent / "classes.json").write_text(json.dumps(list(classes)))
    return path


def table(images, labels, names=("cat", "dog"), columns=("image", "label"), struct=True):
    """A table as Hugging Face writes it: encoded images, labels, ClassLabel names in the schema."""
    cells = [{"bytes": data, "path": None} for data in images] if struct else images
    image_type = (
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    )
    made = pa.table(
        {columns[0]: pa.array(cells, image_type), columns[1]: pa.array(labels)},
    )
    if names is None:
        return made
    features = {
        columns[0]: {"_type": "Image"},
        columns[1]: {"names": list(names), "_type": "ClassLabel"},
    }
    return made.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )


def shards(root, counts=None, start=0, **options):
    """Parquet shards in Hugging Face's layout: ``{"train": (4, 3)}`` makes two shards."""
    (root / "data").mkdir(parents=True)
    key = start
    for split, sizes in (counts or {"train": (7, 5), "test": (4,)}).items():
        for number, size in enumerate(sizes):
            keys = range(key, key + size)
            key += size
            made = table([png(pixels(k)) for k in keys], [k % 2 for k in keys], **options)
            name = f"{split}-{number:05d}-of-{len(sizes):05d}.parquet"
            pq.write_table(made, root / "data" / name)
    return root
