"""What the names of folders say: class, generator, split and category. Pure: names in, meanings out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from data.sources.base import FAKE, JOINED, REAL, SHARED_REAL, Problem, shown_names

Parts = tuple[str, ...]

# Names of the two class folders; the first pair of which a tree has a name counts.
PAIRS = (("0_real", "1_fake"), ("nature", "ai"), ("real", "fake"))
SPLIT_NAMES = {
    "train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test",
    "testing": "test",
}  # fmt: skip
# The training set of CNNDetection, and of benchmarks that took it over, is made by ProGAN, a folder per LSUN class.
LSUN = frozenset(
    {
        "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
        "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    }
)  # fmt: skip
PROGAN = "progan"
UFD = "UniversalFakeDetect"
# Generators of test sets that are published without a folder per split.
TEST_SETS = {
    "CNNDetection": {
        "progan", "stylegan", "stylegan2", "biggan", "cyclegan", "stargan", "gaugan", "crn", "imle", "seeingdark",
        "san", "deepfake", "whichfaceisreal",
    },
    UFD: {
        "guided", "ldm_200", "ldm_200_cfg", "ldm_100", "glide_100_27", "glide_50_27", "glide_100_10", "dalle",
    },
}  # fmt: skip
# Folders of whole test sets, and the folder in which UniversalFakeDetect has its training set beside them.
_TEST_FOLDERS, _CONTAINERS = frozenset({"diffusion_datasets", "cnn_synth_testset"}), frozenset({"datasets"})
_UFD_REALS = {"imagenet": {"guided"}, "laion": TEST_SETS[UFD] - {"guided"}}  # real images -> the generators beside them
_TEST_NAME = re.compile(r"(^|[_\-. ])(test|tests|testing|testset|test_set)$", re.IGNORECASE)
_FETCHED = re.compile(r"-[0-9a-f]{12}$")  # the end of a fetched folder's name, see `data.fetch`
_TEST_ONLY = frozenset({"cocoglide"})  # corpora that are tested only, and name no splits
_LIKE_GENERATORS = re.compile(
    r"gan|diff|(^|[^a-z])sd|stable|dall|glide|midjourney|(^|[^a-z])adm|vqdm|wukong|ldm|flux|firefly|imagen\d?$|guided"
    r"|kandinsky|pixart|lama|repaint|deepfake|(^|[^a-z])ai[^a-z]",
    re.IGNORECASE,
)
_FEW_LSUN = 3


@dataclass(frozen=True)
class Place:
    """What a folder's path says.

    Attributes:
        label: 0 real, 1 fake.
        generator: as in `data.sources.base.Entry`.
        category: further levels, which belong to the id of a photograph.
        split: None if the path names none.
        below: the categories below the class folder.
    """

    label: int
    generator: str
    category: tuple[str, ...]
    split: str | None
    below: tuple[str, ...] = ()


@dataclass
class Tree:
    """What all folders of a tree say.

    Attributes:
        places: folder -> its meaning, or the problem with it.
        notes: what was guessed, a sentence each.
        is_test_set: no path names a split, and the tree is a benchmark's test set, which must not be split.
    """

    places: dict[Parts, Place | Problem] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    is_test_set: bool = False

    @property
    def sound(self) -> dict[Parts, Place]:
        """The folders without a problem."""
        return {parts: place for parts, place in self.places.items() if isinstance(place, Place)}


def class_names(folders: Iterable[Parts]) -> tuple[str, str]:
    """The names of the class folders of a tree: the first of `PAIRS` that has both, else the first that has one."""
    names = {part.lower() for parts in folders for part in parts}
    whole = (pair for pair in PAIRS if names >= set(pair))
    return next(whole, next((pair for pair in PAIRS if names & set(pair)), PAIRS[0]))


def class_level(parts: Parts, pair: tuple[str, str]) -> int | None:
    """The level of the class folder; None without one."""
    return next((number for number, part in enumerate(parts) if part.lower() in pair), None)


def read_tree(folders: Iterable[Parts], name: str) -> Tree:
    """Read the names of the folders that hold images.

    Args:
        folders: names of folders from the data folder down.
        name: of the data folder.
    """
    shortened = _without_containers(set(folders))
    with_level = _with_fake_level(set(shortened))
    given = {parts: shortened[own] for parts, own in with_level.items()}
    folders = sorted(given)
    tree, pair = Tree(), class_names(folders)
    has_no_fakes = any(virtual != parts for virtual, parts in with_level.items())
    if has_no_fakes:
        tree.notes.append(f"no folder {pair[1]}: the folders beside {pair[0]} were read as the generators")
    below: defaultdict[Parts, set[str]] = defaultdict(set)
    for parts in folders:
        for number, part in enumerate(parts):
            below[parts[:number]].add(part.lower())
    splits = {parts: _split_levels(parts, below) for parts in folders}
    names: dict[Parts, tuple[int, Parts, Parts]] = {}
    for parts in folders:
        problem = _problem(parts, splits[parts], pair)
        if problem is not None:
            tree.places[parts] = problem
            continue
        level = class_level(parts, pair)
        assert level is not None, "else it is a problem"
        above = tuple(part for number, part in enumerate(parts[:level]) if number not in splits[parts])
        inside = tuple(part for number, part in enumerate(parts) if number > level and number not in splits[parts])
        names[parts] = pair.index(parts[level].lower()), above, inside
    of_split = {parts: _split_of(parts[levels[0]]) if levels else None for parts, levels in splits.items()}
    _place(tree, names, of_split, pair, has_no_fakes=has_no_fakes)
    if sets := sorted({part for parts in folders for part in parts if part.lower() in _TEST_FOLDERS}):
        tree.notes.append(f"whole test sets, whose images are only tested: {', '.join(sets)}")
    _progans_categories(tree, of_split)
    _share_reals(tree)
    _take_validation_for_test(tree)
    _find_test_set(tree, name)
    tree.places = {given[parts]: place for parts, place in tree.places.items()}
    return tree


def why_test_set(name: str, generators: Collection[str]) -> str:
    """Why a data set without splits is a benchmark's test set, which must not be split; "" if it is none.

    Args:
        name: of the data folder.
        generators: those of its fakes.
    """
    small = {generator.lower() for generator in generators}
    of_set = [title for title, known in TEST_SETS.items() if len(small & known) >= max(3, len(small) / 2)]
    if of_set:
        return f"its generators are those of {of_set[0]}'s"
    is_test = _TEST_NAME.search(_FETCHED.sub("", name)) or name.lower() in _TEST_ONLY
    return f"its name is {name!r}" if is_test else ""


def _with_fake_level(folders: set[Parts]) -> dict[Parts, Parts]:
    """Folders with a level for the class -> the folders as they are.

    DiffusionForensics has real/ beside the folders of the generators, and no folder fake/. There, a level fake is put
    below each generator.
    """
    names = {part.lower() for parts in folders for part in parts}
    real = next((pair[0] for pair in PAIRS[1:] if pair[0] in names and pair[1] not in names), None)
    if real is None or any(name in names for pair in PAIRS for name in pair if name != real):
        return {parts: parts for parts in folders}
    fake = next(pair[1] for pair in PAIRS if pair[0] == real)
    above = {tuple(parts[:number]) for parts in folders for number, part in enumerate(parts) if part.lower() == real}
    found = {}
    for parts in folders:
        places = [number for number in range(len(parts)) if parts[:number] in above]
        is_real = real in map(str.lower, parts)
        number = None if is_real or not places else places[-1] + 1
        found[parts if number is None else (*parts[:number], fake, *parts[number:])] = parts
    return found


def _split_levels(parts: Parts, below: Mapping[Parts, set[str]]) -> list[int]:
    """The levels that name a split, or a whole test set. A folder "train" beside other LSUN classes is no split.

    Args:
        parts: of a folder.
        below: folder -> the names in it, in small letters.
    """
    levels = [number for number, part in enumerate(parts) if part.lower() in SPLIT_NAMES]
    levels = [n for n in levels if parts[n].lower() != "train" or len(below[parts[:n]] & LSUN) < _FEW_LSUN]
    return sorted([*levels, *(n for n, part in enumerate(parts) if part.lower() in _TEST_FOLDERS)])


def _split_of(name: str) -> str:
    return SPLIT_NAMES.get(name.lower(), "test")


def _without_containers(folders: set[Parts]) -> dict[Parts, Parts]:
    """Folders -> the folders as they are; without a first level `datasets` of splits, beside a whole test set."""
    first = {parts[0].lower() for parts in folders if parts}
    of_splits = {p[0] for p in folders if len(p) > 1 and p[0].lower() in _CONTAINERS and p[1].lower() in SPLIT_NAMES}
    found = {parts[1:] if parts and parts[0] in of_splits else parts: parts for parts in folders}
    return found if first & _TEST_FOLDERS and len(found) == len(folders) else {parts: parts for parts in folders}


def _problem(parts: Parts, splits: list[int], pair: tuple[str, str]) -> Problem | None:
    where = "/".join(parts) or "."
    if len({_split_of(parts[number]) for number in splits}) > 1:
        return Problem(where, "two split levels in one path", "keep one of them")
    number = sum(part.lower() in pair for part in parts)
    if number != 1:
        what = f"images neither under {pair[0]} nor under {pair[1]}" if not number else "two class levels in one path"
        return Problem(where, what, "move them into a class folder or out of the data folder")
    return None


def _place(
    tree: Tree, names: Mapping[Parts, tuple[int, Parts, Parts]], of_split: Mapping[Parts, str | None],
    pair: tuple[str, str], *, has_no_fakes: bool,
) -> None:  # fmt: skip
    """Find the level of the generators, above or below the class folders."""
    fakes = [(above, below) for label, above, below in names.values() if label == FAKE]
    if fakes and all(not above and below for above, below in fakes):
        tree.notes.append(f"no level above {pair[1]}: the folders in {pair[1]} were read as the generators")
        made = {below[0] for _, below in fakes}
        for parts, (label, above, below) in names.items():
            own = not above and below and below[0] in made
            generator = below[0] if own else SHARED_REAL
            category = below[1:] if own else (*above, *below)
            tree.places[parts] = Place(label, generator, category, of_split[parts])
        return
    level = _generator_level([above for above, _ in fakes])
    if has_no_fakes:  # the generators are beside the real images, so right above the level that was put in
        level = max((len(above) for above, _ in fakes), default=1) - 1
    if level:
        shown = shown_names(sorted({above[level] for above, _ in fakes if len(above) > level}))
        above_it = shown_names(sorted({above[0] for above, _ in fakes}))
        tree.notes.append(f"read as generators: {shown}; as categories above them: {above_it}")
    for parts, (label, above, below) in names.items():
        if not above:
            what, remedy = "no generator level above the class folder", "give the folder above, or add the level"
            tree.places[parts] = Problem("/".join(parts) or ".", what, remedy)
        elif len(above) > level:
            category = (*above[:level], *above[level + 1 :], *below)
            tree.places[parts] = Place(label, above[level], category, of_split[parts], below)
        else:  # real images beside the folders of generators
            category = (*above, *below)
            tree.places[parts] = Place(label, SHARED_REAL if label == REAL else above[-1], category, of_split[parts])


def _generator_level(above: list[Parts]) -> int:
    """The level whose names are like names of generators, if the first level has no such name; else the first."""
    depth = max(map(len, above), default=0)
    names = [{parts[level] for parts in above if len(parts) > level} for level in range(depth)]
    shares = [sum(bool(_LIKE_GENERATORS.search(name)) for name in level) / len(level) for level in names]
    return shares.index(max(shares)) if shares and not shares[0] and max(shares) > 0.5 else 0


def _progans_categories(tree: Tree, of_split: Mapping[Parts, str | None]) -> None:
    """Training folders named like LSUN classes, which no test folder is, hold ProGAN's images."""
    tested = {place.generator for place in tree.sound.values() if place.split == "test"}
    spelled = next((name for name in sorted(tested) if name.lower() == PROGAN), PROGAN)
    taken = set()
    for parts, place in tree.sound.items():
        if tested and place.split in ("train", "valid") and place.generator.lower() in LSUN - tested:
            taken.add(place.generator)
            category = (place.generator, *place.category)
            tree.places[parts] = replace(place, generator=spelled, category=category)
    if taken:
        tree.notes.append(
            f"training folders named like LSUN classes were read as categories of {spelled}, as in CNNDetection's "
            f"training set: {shown_names(sorted(taken))}"
        )


def _share_reals(tree: Tree) -> None:
    """Real images in folders without fakes are shared by all generators, where no generator has its own.

    The folders of UniversalFakeDetect's test set are known; there, and there alone, others may have their own.
    """
    labels: defaultdict[str, set[int]] = defaultdict(set)
    for place in tree.sound.values():
        labels[place.generator].add(place.label)
    labels.pop(SHARED_REAL, None)
    real_only = {name for name, present in labels.items() if present == {REAL}}
    fake_only = {name for name, present in labels.items() if present == {FAKE}}
    owners = dict.fromkeys(real_only, SHARED_REAL)
    if is_ufd := bool(fake_only) and {name.lower() for name in fake_only} <= TEST_SETS[UFD]:
        of_known = {
            name: sorted(fake for fake in fake_only if fake.lower() in _UFD_REALS.get(name.lower(), ()))
            for name in real_only
        }
        is_ufd = sorted(fake for fakes in of_known.values() for fake in fakes) == sorted(fake_only)
        owners = {name: JOINED.join(fakes) for name, fakes in of_known.items()} if is_ufd else owners
    has_both = len(real_only) + len(fake_only) < len(labels)
    if not real_only or not fake_only or (has_both and not is_ufd):
        return
    for parts, place in tree.sound.items():
        if owner := owners.get(place.generator):
            tree.places[parts] = replace(place, generator=owner, category=(place.generator, *place.category))
    if is_ufd:
        words = "; ".join(f"{name}: {owner.replace(JOINED, ', ')}" for name, owner in sorted(owners.items()) if owner)
        tree.notes.append(f"real images are those of some generators, as in {UFD}: {words}")
        return
    tree.notes.append(f"the real images in {shown_names(sorted(real_only))} are shared by all generators")
    if len(real_only) > 1:
        tree.notes.append(
            "these are real images of several origins, and every generator is compared with all of them; a list "
            "(`manifest`) can name the real images of each generator"
        )


def _take_validation_for_test(tree: Tree) -> None:
    """Without any test folder, the validation folders are the test set, as in GenImage."""
    splits = {place.split for place in tree.sound.values()}
    if not splits <= {"train", "valid"} or "valid" not in splits:
        return
    for parts, place in tree.sound.items():
        if place.split == "valid":
            tree.places[parts] = replace(place, split="test")
    tree.notes.append("no folder names a test split: the validation folders are the test images, as in GenImage")


def _find_test_set(tree: Tree, name: str) -> None:
    """A benchmark's test set without a level for splits: all of it is tested, nothing is trained on."""
    if not tree.sound or any(place.split for place in tree.sound.values()):
        return
    generators = {place.generator for place in tree.sound.values() if place.label == FAKE}
    why = why_test_set(name, generators)
    if not why:
        return
    tree.is_test_set = True
    tree.notes.append(f"the folder is a benchmark's test set ({why}): its images are only tested, and never trained on")
    for parts, place in tree.sound.items():
        tree.places[parts] = replace(place, split="test")
