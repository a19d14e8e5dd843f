"""The protocol's plan: which networks are trained, how, and in what order."""

from collections.abc import Sequence
from dataclasses import dataclass, field

Shape = tuple[Sequence[int], Sequence[int]]
# How names of the family begin, and those of the same shapes that learn from the twin.
PLAIN, DISTILLED = "plain-", "distilled-"


@dataclass(frozen=True)
class Gates:
    """What the gates of identity blocks learn, for `steps` steps, from what is seen in `passes` over the images.

    A gate of the last stage runs its block where the answer so far is less than `sure`; `run` holds for each gate of the
    earlier stages the share of images that should run its block, the hardest ones.
    """

    run: Sequence[float]
    sure: float
    passes: int
    steps: int


@dataclass(frozen=True)
class Recipe:
    """All networks of a data set share it: `epochs`, learning rate, augmentation. `twin` holds the depths and widths of
    the plain twin and the gated network, `family` those of smaller plain networks; the first `rivals` of these have
    about the gated network's mean cost, and are trained with every seed, as twin and gated network are.

    The learning rate rises and falls over `epochs`. After them, it is constant for `averaged` epochs, over which weights are averaged.

    In the first part of `epochs`, a share of `early`, images have `early_side` (progressive resizing), later the data set's
    size. `cutout` is the side of the blanked square, as a share of the image's. For texts, depths count layers of an encoder, whose
    stages all have one width; `early_side` counts tokens, and `cutout` is the share of the words that are blanked. With `strong`,
    images are also changed by TrivialAugment. `fast` trains networks for images with Muon and, where the stem isn't `large`, fixed
    whitening filters in it; each image is mirrored in every second epoch instead of at random.
    `smoothing` is that of the labels that the whole network's answer learns from; exits, whose confidence decides, learn from
    plain ones. Before it learns from labels, a network for texts fills in blanked words for `pretraining` epochs, at twice the rate,
    unless it is one of `from_labels`. With `gates`, one more network of the twin's shape has gates instead of exits. Each of `taught`, names
    of the family, is also trained as `distilled-...`: it learns from the twin's answers instead of labels, and is trained with every seed.
    """

    twin: Shape
    family: dict[str, Shape]
    epochs: int
    early_side: int
    early: float = 0.6
    cutout: float = 0.3
    batch: int = 128
    peak_rate: float = 0.1
    seeds: tuple[int, ...] = (1, 2, 3)
    rivals: int = 1
    averaged: int = 0
    large: bool = False
    strong: bool = False
    fast: bool = False
    smoothing: float = 0.0
    pretraining: int = 0
    from_labels: tuple[str, ...] = ()
    taught: tuple[str, ...] = ()
    gates: Gates | None = None

    def __post_init__(self) -> None:
        before = self.twin[0][:-1]
        early = 1 + sum(before) - len(before)
        if self.gates and len(self.gates.run) != early:
            raise ValueError(f"{len(self.gates.run)} shares for the {early} identity blocks before the last stage of {self.twin[0]}")

    @property
    def total(self) -> int:
        return self.epochs + self.averaged

    def side(self, epoch: int, size: int) -> int:
        return self.early_side if epoch < self.early * self.epochs else size


PLAN = {
    "fashion-mnist": Recipe(
        twin=((2, 4, 6), (16, 32, 64)),
        family={
            "plain-1-2-3": ((1, 2, 3), (16, 32, 64)),
            "plain-thin": ((2, 4, 6), (16, 24, 48)),
            "plain-1-1-2": ((1, 1, 2), (16, 32, 64)),
            "plain-1-3-5": ((1, 3, 5), (16, 32, 64)),
        },
        epochs=20, early_side=20, taught=("plain-1-1-2", "plain-1-2-3"),
    ),
    "cifar10": Recipe(
        twin=((1, 1, 2, 2), (32, 64, 128, 256)),
        family={
            "plain-thin": ((1, 1, 2, 2), (24, 48, 96, 192)),
            "plain-1-1-1-1": ((1, 1, 1, 1), (32, 64, 128, 256)),
            "plain-thin-1-1-1-1": ((1, 1, 1, 1), (24, 48, 96, 192)),
            "plain-1-1-1-2": ((1, 1, 1, 2), (32, 64, 128, 256)),
        },
        epochs=24, early_side=32, cutout=0.375, batch=500, peak_rate=0.08, fast=True, smoothing=0.1, averaged=8,
        taught=("plain-thin-1-1-1-1", "plain-thin"),
    ),
    "imagenette": Recipe(
        twin=((2, 2, 2, 2), (48, 96, 192, 256)),
        family={
            "plain-thin": ((2, 2, 2, 2), (32, 64, 128, 192)),
            "plain-1-1-1-1": ((1, 1, 1, 1), (48, 96, 192, 256)),
            "plain-thin-1-1-1-1": ((1, 1, 1, 1), (32, 64, 128, 192)),
            "plain-1-1-2-2": ((1, 1, 2, 2), (48, 96, 192, 256)),
        },
        epochs=38, early_side=80, early=0.7, batch=128, peak_rate=0.08, large=True, cutout=0.25,
        strong=True, fast=True, smoothing=0.1, averaged=10, taught=("plain-thin-1-1-1-1", "plain-thin"),
    ),
    "mnist": Recipe(
        twin=((1, 2, 6), (16, 32, 48)), family={"plain-1-1-2": ((1, 1, 2), (16, 32, 48))},
        epochs=40, early_side=28, batch=64, peak_rate=0.05, seeds=(1,),
        gates=Gates(run=(0.98, 0.98), sure=0.88, passes=6, steps=8000),
    ),
    "sst2": Recipe(
        twin=((1, 3), (64, 64)),
        family={
            "plain-2": ((1, 1), (64, 64)), "plain-1": ((1,), (64,)), "plain-1-labels": ((1,), (64,)),
            "plain-3": ((1, 2), (64, 64)),
        },
        epochs=8, early_side=20, batch=64, peak_rate=0.001, cutout=0.4, pretraining=40, seeds=(1, 2, 3, 4, 5), rivals=3,
        from_labels=("plain-1-labels",),
    ),
}  # fmt: skip

SMOKE = {
    "mnist": Recipe(
        twin=((1, 2, 2), (8, 16, 32)), family={"plain-1-1-1": ((1, 1, 1), (8, 16, 32))},
        epochs=2, averaged=1, early_side=20, early=0.5, seeds=(1,), fast=True, taught=("plain-1-1-1",),
        gates=Gates(run=(0.5, 0.6), sure=0.8, passes=1, steps=100),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One training: of the twin, the gated network (with exits), the one with gates, or a plain network of the family."""

    dataset: str
    role: str
    seed: int
    recipe: Recipe = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.role}-seed{self.seed}"

    @property
    def taught(self) -> bool:
        return self.role.startswith(DISTILLED)

    @property
    def shape(self) -> Shape:
        return self.recipe.family.get(self.role.replace(DISTILLED, PLAIN), self.recipe.twin)

    @property
    def pretraining(self) -> int:
        return 0 if self.role in self.recipe.from_labels else self.recipe.pretraining


def runs(plan: dict[str, Recipe] = PLAN) -> list[Run]:
    """All runs, the most telling ones first: one seed of twin, gated network and rival on each data set, the cheapest of the
    three first, then the rest of the families, then further seeds.
    """
    listed = []
    for dataset, recipe in plan.items():
        rivals = list(recipe.family)[: recipe.rivals]
        taught = [name.replace(PLAIN, DISTILLED) for name in recipe.taught]
        # A front has its teacher's seeds, and so has the plain network of its shape.
        often = {"twin", "gated", *rivals, *recipe.taught, *taught}
        roles = {role: recipe.seeds if role in often else recipe.seeds[:1]
                 for role in ("twin", "gated", *recipe.family, *taught, *(["gates"] if recipe.gates else []))}  # fmt: skip
        for role, seeds in roles.items():
            for seed in seeds:
                first = recipe.seeds.index(seed)
                turn = 1 + first if first else int(role not in ("twin", "gated", rivals[0]))
                listed.append((turn, Run(dataset, role, seed, recipe)))
    return [run for _, run in sorted(listed, key=lambda entry: entry[0])]
