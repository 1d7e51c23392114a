"""Stand-ins of published data sets, as the hub's cache and the owners' files hold them.

Every maker of original files writes small images into the layout that the owners ship, with as many
classes as the description has, and no more than a few images of each. The pixels differ everywhere.
"""

import csv
import gzip
import io
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat

from taskgrid.config import TaskSpec
from taskgrid.data.published.reading import read_description
from tests.unit.example_images import pixels, png, table
from tests.unit.example_servers import etag

COMMIT = "a" * 40


def published(dataset, path=None, layout="original", **fields):
    options = {"layout": layout, **fields.pop("options", {})}
    return TaskSpec(
        name=fields.pop("name", dataset),
        source="published",
        path=str(path) if path else None,
        options=options,
        **fields,
    )


# The hub


def hub_cache(root, repository, files, commit=COMMIT, kind="dataset", links=True):
    """A cache of the hub's clients that holds a repository; ``files`` is content by name."""
    folder = root / f"{kind}s--{repository.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    for name, content in files.items():
        pointer = folder / "snapshots" / commit / name
        pointer.parent.mkdir(parents=True, exist_ok=True)
        if not links:
            pointer.write_bytes(content)
            continue
        blob = folder / "blobs" / etag(name, content)
        blob.write_bytes(content)
        up = "../" * (len(name.split("/")) + 1)
        pointer.symlink_to(f"{up}blobs/{blob.name}")
    return root


def parquet(images, labels, names, columns=("image", "label"), rows_per_group=4):
    """The bytes of a Parquet file in the hub's layout."""
    sink = io.BytesIO()
    made = table([png(image) for image in images], pa.array(labels), names, columns)
    pq.write_table(made, sink, row_group_size=rows_per_group)
    return sink.getvalue()


def hub_files(dataset, counts, names=None, start=0, shards=2):
    """Files of a data set's repository, and the class and pixels of each image in order.

    Args:
        dataset: name of the description.
        counts: number of images of each split.
        names: class names in the repository's own order; None is the description's order reversed.
        start: key of the first image's pixels.
        shards: files of each split.
    """
    description = read_description(dataset)
    hub = description.hub
    names = list(reversed(description.keys)) if names is None else list(names)
    files, expected, key = {}, {}, start
    for split, count in counts.items():
        images = [pixels(key + row, 6 + row % 3, 7) for row in range(count)]
        labels = np.random.default_rng(key).permutation(np.arange(count) % len(names)).tolist()
        expected[split] = [
            (names[label], image) for label, image in zip(labels, images, strict=True)
        ]
        cut = np.array_split(np.arange(count), shards)
        for number, rows in enumerate(cut):
            name = hub.files[split].replace("*", f"{number:05d}-of-{shards:05d}")
            files[name] = parquet(
                [images[row] for row in rows],
                [labels[row] for row in rows],
                names,
                (hub.image, hub.label),
            )
        key += count
    return files, expected


def hub_standin(root, dataset, counts, commit=None, **options):
    """A cache with a data set's repository; returns what `hub_files` expects of it."""
    hub = read_description(dataset).hub
    files, expected = hub_files(dataset, counts, **options)
    hub_cache(root, hub.repository, files, commit or hub.revision or COMMIT)
    return expected


# Original files


class Originals:
    """Writes files below a folder, and gives every image pixels of its own."""

    def __init__(self, root):
        self.root = Path(root)
        self._key = 0

    def pixels(self, height=6, width=8):
        self._key += 1
        return pixels(10_000 + self._key, height, width)

    def file(self, name, content):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def image(self, name):
        """An image file; its suffix says which kind."""
        kind = {"jpg": "JPEG", "JPEG": "JPEG", "png": "PNG", "ppm": "PPM"}[name.rsplit(".", 1)[1]]
        buffer = io.BytesIO()
        Image.fromarray(self.pixels()).save(buffer, kind)
        self.file(name, buffer.getvalue())

    def mat(self, name, variables):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        savemat(path, variables, do_compression=True)


def idx_bytes(array):
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return header + array.tobytes()


def make_idx(out, dataset, counts=(30, 12), suffix=""):
    settings = read_description(dataset).original.options
    classes = len(read_description(dataset).keys)
    for split, count in zip(("train", "test"), counts, strict=True):
        images = np.stack([out.pixels(28, 28)[..., 0] for _ in range(count)])
        labels = (np.arange(count) * 3) % classes + settings.get("first_label", 0)
        for kind, array in (("images", images), ("labels", labels.astype(np.uint8))):
            content = idx_bytes(array)
            name = f"{settings['folder']}/{settings[kind][split]}{suffix}"
            out.file(name, gzip.compress(content) if suffix else content)


def make_cifar(out, dataset):
    settings = read_description(dataset).original.options
    count = len(read_description(dataset).keys)
    for name in [*settings["train"], *settings["test"]]:
        records = []
        for row in range(5):
            coarse = [99] if settings["label_bytes"] == 2 else []
            image = out.pixels(32, 32).transpose(2, 0, 1)
            records.append(bytes([*coarse, (7 * row + len(name)) % count]) + image.tobytes())
        out.file(f"{settings['folder']}/{name}", b"".join(records))


def make_svhn(out, _dataset):
    for split, count in (("train", 23), ("test", 11)):
        images = np.stack([out.pixels(32, 32) for _ in range(count)], axis=-1)
        labels = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
        out.mat(f"svhn/{split}_32x32.mat", {"X": images, "y": labels})


def make_stl10(out, _dataset):
    for split, count in (("train", 12), ("test", 10)):
        images = [out.pixels(96, 96).transpose(2, 1, 0).tobytes() for _ in range(count)]
        out.file(f"stl10_binary/{split}_X.bin", b"".join(images))
        out.file(f"stl10_binary/{split}_y.bin", bytes(row % 10 + 1 for row in range(count)))


def make_pcam(out, _dataset):
    import h5py

    for split, count in (("train", 9), ("test", 5)):
        images = np.stack([out.pixels(96, 96) for _ in range(count)])
        labels = (np.arange(count) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)
        for name, array in (("x", images), ("y", labels)):
            path = out.root / "pcam" / f"camelyonpatch_level_2_split_{split}_{name}.h5"
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, "w") as file:
                file[name] = array


def make_fer2013(out, _dataset, name="fer2013.csv", columns=("emotion", "pixels", "Usage")):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for row, usage in enumerate(["Training"] * 9 + ["PublicTest"] * 3 + ["PrivateTest"] * 4):
        values = {
            "emotion": row % 7,
            "pixels": " ".join(map(str, out.pixels(48, 48)[..., 0].ravel())),
            "Usage": usage,
        }
        writer.writerow([values[column.strip()] for column in columns])
    out.file(f"fer2013/{name}", text.getvalue())


def make_cars(out, dataset, extra=0):
    classes = read_description(dataset).keys
    for split, place in (
        ("train", "devkit/cars_train_annos"),
        ("test", "cars_test_annos_withlabels"),
    ):
        count = len(classes) if split == "train" else 5
        rows = np.zeros(count, dtype=[("bbox_x1", "O"), ("class", "O"), ("fname", "O")])
        for row in range(count):
            name = f"{row + 1:05d}.jpg"
            rows[row] = (1, (row * 5) % len(classes) + 1, name)
            out.image(f"stanford_cars/cars_{split}/{name}")
        out.mat(f"stanford_cars/{place}.mat", {"annotations": rows})
    for number in range(extra):
        out.image(f"stanford_cars/cars_train/unlisted_{number}.jpg")
    names = np.array(classes, dtype=object)
    out.mat("stanford_cars/devkit/cars_meta.mat", {"class_names": names})


def make_dtd(out, dataset):
    lists = {"train1": [], "val1": [], "test1": []}
    for name in read_description(dataset).keys:
        # In an order that no listing gives.
        for number, part in ((100, "train1"), (20, "val1"), (9, "test1")):
            file = f"{name}/{name}_{number}.jpg"
            out.image(f"dtd/dtd/images/{file}")
            lists[part].append(file)
    for part, files in lists.items():
        out.file(f"dtd/dtd/labels/{part}.txt", "\n".join(files) + "\n")
    out.file("dtd/dtd/labels/train2.txt", "nothing/of_this.jpg\n")


def make_sun397(out, dataset):
    lists = {"Training_01": [], "Testing_01": []}
    for name in reversed(read_description(dataset).keys):
        for part, files in lists.items():
            file = f"/{name[0]}/{name}/sun_{part[:2].lower()}x.jpg"
            out.image(f"SUN397{file}")
            files.append(file)
    for part, files in lists.items():
        # The owners' lists have DOS line ends.
        out.file(f"SUN397/{part}.txt", "\r\n".join(files) + "\r\n")


def make_flowers102(out, _dataset):
    count = 120
    for number in range(1, count + 1):
        out.image(f"flowers-102/jpg/image_{number:05d}.jpg")
    labels = np.arange(count) % 102 + 1
    order = np.random.default_rng(1).permutation(count) + 1
    out.mat("flowers-102/imagelabels.mat", {"labels": labels.astype(np.uint8)[None]})
    out.mat(
        "flowers-102/setid.mat",
        {"trnid": order[None, :30], "valid": order[None, 30:50], "tstid": order[None, 50:]},
    )


def make_pets(out, dataset):
    for part, numbers in (("trainval", (3, 10)), ("test", (1,))):
        lines = []
        for label, name in enumerate(read_description(dataset).keys, start=1):
            for number in numbers:
                out.image(f"oxford-iiit-pet/images/{name}_{number}.jpg")
                lines.append(f"{name}_{number} {label} 1 1")
        out.file(f"oxford-iiit-pet/annotations/{part}.txt", "\n".join(lines) + "\n")


def make_food101(out, dataset):
    for split, number in (("train", 30), ("test", 4)):
        lists = {}
        # The owners' lists are in an order of their own.
        for name in reversed(read_description(dataset).keys):
            lists[name] = [f"{name}/{number}{digit}" for digit in (7, 1)]
            for file in lists[name]:
                out.image(f"food-101/images/{file}.jpg")
        out.file(f"food-101/meta/{split}.json", json.dumps(lists))


def make_gtsrb(out, dataset, train="GTSRB/Training", test="GTSRB/Final_Test/Images", table=""):
    rows = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for label, name in enumerate(read_description(dataset).keys):
        for number in (1, 0):
            out.image(f"gtsrb/{train}/{name}/0000{number}_00000.ppm")
        out.file(f"gtsrb/{train}/{name}/GT-{name}.csv", "Filename;ClassId\n")
        file = f"{(label * 11) % 43:05d}.ppm"
        out.image(f"gtsrb/{test}/{file}")
        rows.append(f"{file};30;30;5;5;25;25;{label}")
    out.file(f"gtsrb/{table}GT-final_test.csv", "\n".join(rows) + "\n")


def make_resisc45(out, dataset, flat=False):
    lists = {"train": [], "val": [], "test": []}
    for name in read_description(dataset).keys:
        for number, part in (("002", "train"), ("001", "train"), ("100", "val"), ("007", "test")):
            file = f"{name}_{number}.jpg"
            out.image(f"resisc45/NWPU-RESISC45/{file if flat else f'{name}/{file}'}")
            lists[part].append(file)
    for part, files in lists.items():
        shuffled = np.random.default_rng(2).permutation(files)
        out.file(f"resisc45/resisc45-{part}.txt", "\n".join(shuffled) + "\n")


def make_class_folders(out, dataset):
    folders = read_description(dataset).original.options["folders"]
    suffix = "JPEG" if dataset == "imagenet" else "png"
    for split, folder in folders.items():
        for name in read_description(dataset).keys:
            for number in (10, 9) if split == "train" else (1,):
                out.image(f"{folder}/{name}/{name}_{number}.{suffix}")


def make_eurosat(out, dataset, numbers=(1, 2, 3, 10)):
    for name in read_description(dataset).keys:
        for number in numbers:
            out.image(f"eurosat/2750/{name}/{name}_{number}.jpg")


MAKERS = {
    "cars": make_cars,
    "cifar10": make_cifar,
    "cifar100": make_cifar,
    "dtd": make_dtd,
    "emnist_digits": make_idx,
    "emnist_letters": make_idx,
    "eurosat": make_eurosat,
    "fashion_mnist": make_idx,
    "fer2013": make_fer2013,
    "flowers102": make_flowers102,
    "food101": make_food101,
    "gtsrb": make_gtsrb,
    "imagenet": make_class_folders,
    "kmnist": make_idx,
    "mnist": make_idx,
    "oxford_iiit_pet": make_pets,
    "pcam": make_pcam,
    "rendered_sst2": make_class_folders,
    "resisc45": make_resisc45,
    "stl10": make_stl10,
    "sun397": make_sun397,
    "svhn": make_svhn,
}


def original(root, dataset, **options):
    """Make a data set's original files below ``root``; returns ``root``."""
    MAKERS[dataset](Originals(root), dataset, **options)
    return root
