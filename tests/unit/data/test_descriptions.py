"""Descriptions of the literature's data sets, against their owners, libraries and papers."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgrid.data.published.description import Description
from taskgrid.data.published.eurosat_split import IMAGES, eurosat_split_text
from taskgrid.data.published.labels import label_map, normalised
from taskgrid.data.published.reading import (
    described,
    descriptions,
    parse_description,
    read_description,
)
from taskgrid.errors import DataError
from taskgrid.plugins.resources import resource_path
from tests.unit.example_images import SHARED_DATA
from tools.datasets import page

ROOT = Path(__file__).parents[3]

# name: classes, templates, train, val, test. The first eight and ImageNet: Ilharco et al. 2023
# (task_vectors) and Ortiz-Jimenez et al. 2023; the others: Wang et al. 2024 (TALL-masks), and the
# owners' pages for the numbers of images.
PAPERS: dict[str, tuple[int, int, int, int | None, int]] = {
    "cars": (196, 8, 8144, None, 8041),
    "dtd": (47, 8, 3760, None, 1880),
    "eurosat": (10, 3, 21600, 2700, 2700),
    "gtsrb": (43, 3, 26640, None, 12630),
    "mnist": (10, 1, 60000, None, 10000),
    "resisc45": (45, 18, 18900, None, 6300),
    "sun397": (397, 2, 19850, None, 19850),
    "svhn": (10, 1, 73257, None, 26032),
    "imagenet": (1000, 80, 1281167, None, 50000),
    "cifar10": (10, 18, 50000, None, 10000),
    "cifar100": (100, 18, 50000, None, 10000),
    "stl10": (10, 2, 5000, None, 8000),
    "flowers102": (102, 1, 1020, None, 6149),
    "oxford_iiit_pet": (37, 1, 3680, None, 3669),
    "pcam": (2, 1, 262144, None, 32768),
    "fer2013": (7, 6, 28709, None, 7178),
    "emnist_letters": (26, 1, 124800, None, 20800),
    "emnist_digits": (10, 1, 240000, None, 40000),
    "fashion_mnist": (10, 2, 60000, None, 10000),
    "food101": (101, 1, 75750, None, 25250),
    "kmnist": (10, 1, 60000, None, 10000),
    "rendered_sst2": (2, 1, 6920, None, 1821),
}

# SHA-256 of [sorted class names, templates] as JSON, made from openai/CLIP's data/prompts.md (commit
# d05afc4) and, for the first eight, task_vectors' templates (commit 826a64c), not from our files.
PROMPTS = {
    "cars": "09b0862e4415c8df",
    "dtd": "e9ba80ec3b0c8487",
    "eurosat": "59a28e1d64d01720",
    "gtsrb": "7e13b4e13534ee75",
    "mnist": "2886561c388e6dec",
    "resisc45": "3642784ea2c9f73d",
    "sun397": "19b4780d8a388009",
    "svhn": "2886561c388e6dec",
    "cifar10": "8fd45ee96f833ca3",
    "cifar100": "1b20750b5a765c22",
    "stl10": "46a16cf8f0dd4315",
    "flowers102": "7baba1621a6cf9f6",
    "oxford_iiit_pet": "f6833cbb32a840f7",
    "pcam": "39c58d87bca4ed8a",
    "food101": "7e638cafebbb67a0",
    "rendered_sst2": "a6c32e68a3b269e9",
    "fer2013": "c6edc066992a90d8",
}

# Classes whose name in prompts is another one than in the original.
RENAMED = {
    "eurosat": {
        "AnnualCrop": "annual crop land",
        "HerbaceousVegetation": "brushland or shrubland",
        "Highway": "highway or road",
        "Industrial": "industrial buildings or commercial buildings",
        "Pasture": "pasture land",
        "PermanentCrop": "permanent crop land",
        "Residential": "residential buildings or homes or apartments",
        "SeaLake": "lake or sea",
    },
    "fer2013": {"disgust": "disgusted", "fear": "fearful", "surprise": "surprised"},
    "flowers102": {"pink-yellow dahlia?": "pink and yellow dahlia", "ball moss": "air plant"},
}

ALL = descriptions()


@pytest.fixture(params=sorted(ALL))
def item(request: pytest.FixtureRequest) -> Description:
    return ALL[request.param]


def test_every_data_set_of_the_papers_is_described() -> None:
    assert set(described()) == set(PAPERS) == set(ALL)


def test_counts_are_the_papers(item: Description) -> None:
    classes, templates, train, val, test = PAPERS[item.name]
    expected = {"train": train, "test": test} | ({} if val is None else {"val": val})
    assert (len(item.classes), len(item.templates)) == (classes, templates)
    assert item.expected("original") == expected


def test_the_papers_test_sets_add_up() -> None:
    """Protocol of Ortiz-Jimenez et al. 2023: 87,433 test images, 20,429 validation images."""
    eight = ("cars", "dtd", "eurosat", "gtsrb", "mnist", "resisc45", "sun397", "svhn")
    assert sum(ALL[name].counts["test"] for name in eight) == 87433
    held = [
        ALL[name].counts.get("val", min(ALL[name].counts["train"] // 10, 5000)) for name in eight
    ]
    assert sum(held) == 20429


def test_the_hub_counts_differ_only_where_that_is_said(item: Description) -> None:
    if item.hub is None:
        assert item.name == "emnist_digits"
        return
    found = item.expected("hub")
    assert set(found) == {"train", "test"} == set(item.hub.files)
    unknown = {split for split, count in found.items() if count is None}
    assert unknown == ({"train"} if item.name in ("gtsrb", "resisc45") else set())
    assert all(count in (None, item.counts[split]) for split, count in found.items())


def test_names_tell_classes_apart(item: Description) -> None:
    for _, (names, templates) in [
        ("own", item.prompts()),
        *((variant, item.prompts(variant)) for variant in item.variants),
    ]:
        twice = {name for name, count in Counter(names).items() if count > 1}
        assert twice == ({"missile", "sunglasses"} if item.name == "imagenet" else set())
        assert all(name == name.strip() for name in names)
        assert all(template.format("x") != template for template in templates)


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_prompts_are_the_papers(name: str) -> None:
    names, templates = ALL[name].prompts()
    text = json.dumps([sorted(names), list(templates)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == PROMPTS[name]


def test_each_class_has_its_own_prompt_name(item: Description) -> None:
    differing = {
        key: name for key, name in item.classes.items() if normalised(key) != normalised(name)
    }
    if item.name in ("imagenet", "gtsrb", "pcam"):
        assert len(differing) == len(item.classes)
    else:
        assert differing == RENAMED.get(item.name, {})


def test_road_signs_have_their_official_numbers() -> None:
    """ClassIds of the benchmark: 14 stop, 12 priority road, 17 no entry, 40 roundabout."""
    signs = ALL["gtsrb"].classes
    assert signs["00014"] == "stop"
    assert "priority road" in signs["00012"]
    assert "no entry" in signs["00017"]
    assert "traffic circle" in signs["00040"]
    assert [signs[f"{i:05d}"].split()[-4] for i in (0, 1, 2, 3, 4, 5, 7, 8)] == [
        *("20", "30", "50", "60", "70", "80", "100", "120")
    ]


@pytest.mark.parametrize("name", ["mnist", "svhn", "gtsrb"])
def test_the_quotes_of_the_papers_prompts_are_double(name: str) -> None:
    assert all('"{}"' in template for template in ALL[name].templates)


@settings(max_examples=25)
@given(data=st.data())
def test_labels_are_found_by_name_whatever_the_order_and_the_spelling(data: st.DataObject) -> None:
    item = ALL[data.draw(st.sampled_from(sorted(ALL)))]
    order = data.draw(st.permutations(range(len(item.classes))))
    spell = data.draw(
        st.sampled_from(
            [
                str,
                str.upper,
                lambda name: name.replace("_", " ").replace("/", " "),
                lambda name: name.replace(" ", "_").replace("/", "_"),
            ]
        )
    )
    assert label_map(item, [spell(item.keys[label]) for label in order]) == tuple(order)
    if item.name != "imagenet":
        assert label_map(item, [spell(item.names[label]) for label in order]) == tuple(order)
    if item.hub is not None and item.hub.names is not None:
        back = {key: name for name, key in item.hub.names.items()}
        theirs = [back[item.keys[label]] for label in order]
        assert label_map(item, theirs, item.hub.names) == tuple(order)


# Names as the cards on the hub have them, where they are not those of the original.
@pytest.mark.parametrize(
    ("name", "theirs", "ours"),
    [
        ("fashion_mnist", "T - shirt / top", "T-shirt/top"),
        ("gtsrb", "end / de-restriction of 80 kph speed limit", "00006"),
        ("eurosat", "lake or sea", "SeaLake"),
        ("sun397", "apartment building outdoor", "apartment_building/outdoor"),
        ("oxford_iiit_pet", "egyptian_mau", "Egyptian_Mau"),
        ("cifar100", "cra", "crab"),
        ("food101", "cheese_plate", "cheese_plate"),
        ("resisc45", "sea ice", "sea_ice"),
        ("imagenet", "crane2", "n03126707"),
        ("fer2013", "4", "neutral"),
    ],
)
def test_names_of_the_hub_are_known(name: str, theirs: str, ours: str) -> None:
    item = ALL[name]
    assert item.hub is not None
    back = {key: other for other, key in (item.hub.names or {}).items()}
    prompts = name in ("gtsrb", "eurosat")
    names = [back.get(key, item.classes[key] if prompts else key) for key in item.keys]
    place = item.keys.index(ours)
    assert label_map(item, [*names[:place], theirs, *names[place + 1 :]], item.hub.names) == tuple(
        range(len(names))
    )


def test_labels_that_cannot_be_mapped_are_named() -> None:
    digits = ALL["mnist"]
    names = list(digits.keys)
    with pytest.raises(DataError, match=r"'mnist' has no class called 'zero'; 1 of .* 10 class"):
        label_map(digits, ["zero", *names[1:]])
    with pytest.raises(DataError, match="10 classes, but the source names 9; '9' is missing"):
        label_map(digits, names[:-1])
    with pytest.raises(DataError, match=r"but the source names 9; '0' is missing"):
        label_map(digits, ["1", *names[1:]])
    with pytest.raises(DataError, match="two class names of the source are the same class"):
        label_map(digits, [*names, "3"])


def test_prompts_of_other_lineages_replace_what_differs() -> None:
    names, templates = ALL["cifar100"].prompts("fusion_bench")
    own, own_templates = ALL["cifar100"].prompts()
    differing = {a for a, b in zip(names, own, strict=True) if a != b}
    assert {"cra", "maple_tree"} <= differing and len(differing) == 10
    assert templates == own_templates
    assert ALL["kmnist"].prompts("tall_masks")[0][:3] == ("o", "ki", "su")
    with pytest.raises(
        DataError, match="no prompts called 'x'; there are: fusion_bench, tall_masks"
    ):
        ALL["cifar100"].prompts("x")


# The reference library's own constants: file names and checksums.
@pytest.mark.parametrize(
    ("name", "module", "class_name"),
    [
        ("mnist", "mnist", "MNIST"),
        ("fashion_mnist", "mnist", "FashionMNIST"),
        ("kmnist", "mnist", "KMNIST"),
        ("emnist_letters", "mnist", "EMNIST"),
        ("emnist_digits", "mnist", "EMNIST"),
        ("svhn", "svhn", "SVHN"),
        ("dtd", "dtd", "DTD"),
        ("sun397", "sun397", "SUN397"),
        ("stl10", "stl10", "STL10"),
        ("flowers102", "flowers102", "Flowers102"),
        ("oxford_iiit_pet", "oxford_iiit_pet", "OxfordIIITPet"),
        ("pcam", "pcam", "PCAM"),
        ("fer2013", "fer2013", "FER2013"),
        ("food101", "food101", "Food101"),
        ("rendered_sst2", "rendered_sst2", "RenderedSST2"),
        ("eurosat", "eurosat", "EuroSAT"),
        ("gtsrb", "gtsrb", "GTSRB"),
        ("imagenet", "imagenet", "ImageNet"),
    ],
)
def test_checksums_are_those_of_torchvision(name: str, module: str, class_name: str) -> None:
    source = importlib.import_module(f"torchvision.datasets.{module}").__file__
    assert source is not None
    text = Path(source).read_text(encoding="utf-8")
    original = ALL[name].original
    ours = {file.md5 for file in original.files if file.md5} | set(
        re.findall(r"MD5 ([0-9a-f]{32})", original.place)
    )
    assert ours and all(md5 in text for md5 in ours)
    urls = {file.url.rsplit("/", 1)[1].removesuffix(".gz") for file in original.files if file.md5}
    assert all(url in text for url in urls)


@pytest.mark.parametrize(
    ("name", "class_name"),
    [("fashion_mnist", "FashionMNIST"), ("flowers102", "Flowers102")],
)
def test_original_names_are_those_of_torchvision(name: str, class_name: str) -> None:
    datasets = importlib.import_module("torchvision.datasets")
    assert list(ALL[name].keys) == list(getattr(datasets, class_name).classes)


def test_imagenet_is_open_clips_list_and_in_wordnet_order() -> None:
    metadata = importlib.import_module("open_clip.zero_shot_metadata")
    item = ALL["imagenet"]
    assert item.names == tuple(metadata.IMAGENET_CLASSNAMES)
    assert item.templates == tuple(
        template("{}") for template in metadata.OPENAI_IMAGENET_TEMPLATES
    )
    timm = pytest.importorskip("timm", reason="timm, which lists ImageNet's WordNet ids, is absent")
    listed = Path(timm.__file__).parent / "data" / "_info" / "imagenet_synsets.txt"
    assert (
        item.keys == tuple(listed.read_text(encoding="utf-8").split()) == tuple(sorted(item.keys))
    )


def test_the_shipped_split_is_the_one_that_its_seed_draws() -> None:
    assert resource_path("splits/eurosat.json").read_text() == eurosat_split_text(), (
        "run: python -m taskgrid.data.published.eurosat_split > resources/splits/eurosat.json"
    )


def test_the_shipped_split_is_disjoint_and_balanced() -> None:
    split = json.loads(resource_path("splits/eurosat.json").read_text())
    names = {f"{c}/{c}_{i}.jpg" for c, count in IMAGES.items() for i in range(1, count + 1)}
    val, test = set(split["val"]), set(split["test"])
    assert (len(val), len(test)) == (len(split["val"]), len(split["test"]))
    assert not val & test
    assert val | test < names
    train = names - val - test
    for part, name in ((train, "train"), (val, "val"), (test, "test")):
        assert len(part) == ALL["eurosat"].counts[name]  # type: ignore[index]
    for held in (val, test):
        per_class = Counter(name.split("/")[0] for name in held)
        assert per_class == dict.fromkeys(ALL["eurosat"].keys, 270)
    assert split["images"] == IMAGES
    assert sum(IMAGES.values()) == 27000


def test_the_split_names_real_files() -> None:
    folder = SHARED_DATA / "original-layout" / "EuroSAT_RGB"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: images of the original EuroSAT, for trials only")
    for image in folder.glob("*/*.jpg"):
        number = int(re.fullmatch(rf"{image.parent.name}_(\d+)\.jpg", image.name)[1])  # type: ignore[index]
        assert 1 <= number <= IMAGES[image.parent.name]


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "datasets.md").read_text() == page(), (
        "run: python -m tools.datasets > docs/datasets.md"
    )


def test_the_page_says_for_every_data_set_what_to_put_where(item: Description) -> None:
    section = page().split(f"\n## {item.name}\n")[1].split("\n## ")[0]
    assert item.original.place in section
    assert ("by hand" in section) == item.original.manual
    assert all(file.url in section for file in item.original.files)
    assert item.terms is None or item.terms in section


GOOD: dict[str, Any] = {
    "title": "Two",
    "homepage": "https://example.org",
    "licence": "MIT",
    "counts": {"train": 8, "test": 2},
    "classes": {"a": "an a", "b": "a b"},
    "templates": ["a photo of {}."],
    "hub": {
        "repository": "someone/two",
        "files": {"train": "train-*.parquet", "test": "test-*.parquet"},
    },
    "original": {"reader": "class_folders", "place": "two/a/*.png", "needs": ["two"]},
}

FILE = {"url": "https://example.org/a.zip", "to": "two/a.zip"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"templats": []}, "unknown key 'templats'; did you mean 'templates'? allowed here: title"),
        (
            {"hub.fils": {}},
            "unknown key 'hub.fils'; did you mean 'files'? allowed here: repository",
        ),
        (
            {"original.files": [{**FILE, "md": "x"}]},
            "unknown key 'original.files[0].md'; did you mean 'md5'? allowed here: url, to, md5",
        ),
        ({"templates": None}, "templates is None"),
        ({"templates": []}, "templates is []: "),
        (
            {"templates": ["a photo."]},
            "templates has 'a photo.', which must contain {} exactly once",
        ),
        ({"templates": ["{} {}"]}, "templates has '{} {}', which must contain {} exactly once"),
        ({"classes": {0: "a", "b": "b"}}, "classes[0] is 0, but must be text; put it in quotes"),
        ({"classes": {"a": True, "b": "b"}}, "classes.a is True, but must be text"),
        ({"classes": {"a": " ", "b": "b"}}, "classes.a is ' ': must not be empty"),
        ({"classes": {"a": "a"}}, "classes must name at least two classes"),
        ({"counts": {"train": 8}}, "counts has no test"),
        ({"counts": {"train": 0, "test": 2}}, "counts.train is 0: input should be greater than 0"),
        ({"counts": {"train": 8, "tst": 2}}, "counts.tst is 'tst'; allowed: 'train'"),
        ({"hub_counts": {"val": 3}}, "hub_counts names val, but hub.files does not"),
        ({"hub.revision": "main"}, "hub.revision is 'main'; it must match"),
        ({"hub.repository": "two"}, "hub.repository is 'two'; it must match"),
        ({"hub.files": {"train": "x"}}, "hub.files has no test"),
        (
            {"hub.names": {"x": "a"}},
            "hub.names has 1 names for 2 classes; each class needs exactly one ('b' has none)",
        ),
        ({"hub.names": {"x": "a", "y": "c"}}, "hub.names leads to 'c', which is no class"),
        ({"hub.names": {"x": "a", "y": "b", "z": "b"}}, "hub.names has 3 names for 2 classes"),
        ({"hub": None, "hub_counts": {"train": 3}}, "hub_counts is given, but there is no hub"),
        ({"original.needs": []}, "original.needs is []: "),
        (
            {"original.needs": ["/two"]},
            "original.needs[0] is '/two': must be a path below the data set's folder",
        ),
        (
            {"original.files": [{**FILE, "to": "../a"}]},
            "original.files[0].to is '../a': must be a path below the data set's folder",
        ),
        ({"original.files": [{**FILE, "md5": "abc"}]}, "original.files[0].md5 is 'abc'"),
        ({"split": "none"}, "split is 'none', but resources/splits/none.json is missing"),
        (
            {"variants": {"x": {"source": "s", "classes": {"c": "d"}}}},
            "variants.x.classes names 'c', which is no class",
        ),
        (
            {"variants": {"x": {"source": "s", "templates": ["no"]}}},
            "variants.x.templates has 'no', which must contain {} exactly once",
        ),
        ({"licence": None}, "licence is None, but must be text"),
    ],
)
def test_a_mistake_in_a_description_is_one_sentence(change: dict[str, Any], sentence: str) -> None:
    raw = copy.deepcopy(GOOD)
    for place, value in change.items():
        *above, last = place.split(".")
        section = raw
        for step in above:
            section = section[step]
        section[last] = value
    with pytest.raises(DataError) as caught:
        parse_description("two", raw, "two.yaml")
    assert str(caught.value).startswith(f"two.yaml: {sentence}")
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named() -> None:
    for key in ("title", "counts", "classes", "templates", "original"):
        raw = {name: value for name, value in GOOD.items() if name != key}
        with pytest.raises(DataError, match=f"two.yaml: {key} is missing"):
            parse_description("two", raw, "two.yaml")


def test_a_description_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert read_description("mnist").title == "MNIST"
    with pytest.raises(
        DataError, match="no description of a data set 'mnits'; did you mean 'mnist'"
    ):
        read_description("mnits")
    with pytest.raises(DataError, match="no description of a data set 'a'; there are: none"):
        read_description("a", tmp_path)
    for text, message in [
        ("a: [", "is not YAML"),
        ("- a", "must hold a mapping"),
        ("classes: {a: b, a: c}", "is not YAML: the key 'a' stands twice"),
    ]:
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(DataError, match=message) as caught:
            read_description("a", tmp_path)
        assert "a.yaml" in str(caught.value) and "\n" not in str(caught.value)
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(GOOD))
    assert read_description("two", tmp_path).keys == ("a", "b")


def test_reading_descriptions_needs_no_torch() -> None:
    code = (
        "import sys; from tools.datasets import page; page(); "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'torchvision', 'mlflow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
