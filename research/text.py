"""The protocol's texts: a data set's training and validation part as token ids, its vocabulary, and how batches are augmented."""

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from adapt.common import decayed
from data import Split, write_json
from encoder import LONGEST, PADDING, ExitEncoder, Encoder
from images import held_out
from plan import Recipe, Shape

# The first ids of every vocabulary; a word that it doesn't hold, and one that is blanked, is UNKNOWN.
SPECIAL = ["[PAD]", "[UNK]", "[CLS]"]
_, UNKNOWN, START = range(len(SPECIAL))
# What a text is called in reference.json.
NAMED = "text"
WEIGHT_DECAY = 0.05
# Words, and single punctuation marks.
WORD = re.compile(r"[^\W_]+|[^\w\s]|_")


@dataclass(frozen=True)
class TextSet:
    """`words` and `endings`: how many of the most frequent ones are in the vocabulary. Texts have at most `size` tokens."""

    name: str
    title: str
    labels: list[str]
    words: int
    endings: int
    size: int = LONGEST

    @property
    def vocabulary(self) -> int:
        return len(SPECIAL) + self.words + self.endings


DATASETS = {"sst2": TextSet("sst2", "SST-2", ["negative", "positive"], 4000, 300)}


def read(file: Path) -> tuple[list[str], torch.Tensor]:
    """Texts and labels of a file with a text, a tab and the index of a class in each line."""
    rows = [line.split("\t") for line in file.read_text().splitlines()]
    return [text for text, _ in rows], torch.tensor([int(label) for _, label in rows])


def split_words(text: str) -> list[str]:
    """As the pre-tokenizer of BERT does, of lower-case text."""
    return WORD.findall(text.lower())


def pieces(word: str, vocabulary: dict[str, int]) -> list[str]:
    """WordPiece: always the longest beginning that the vocabulary holds; none at all where the word doesn't come out even."""
    found, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        end = next((end for end in range(len(word), start, -1) if prefix + word[start:end] in vocabulary), None)
        if end is None:
            return [SPECIAL[UNKNOWN]]
        found.append(prefix + word[start:end])
        start = end
    return found


def vocabulary_of(dataset: TextSet, texts: Sequence[str]) -> list[str]:
    """The most frequent words, and of the other words the most frequent endings behind such a word; ties by the alphabet."""

    def most(counts: Counter, number: int) -> list[str]:
        return sorted(counts, key=lambda one: (-counts[one], one))[:number]

    counts = Counter(word for text in texts for word in split_words(text))
    words = most(counts, dataset.words)
    known = set(words)
    endings = Counter()
    for word, count in counts.items():
        cut = next((cut for cut in range(len(word), 0, -1) if word[:cut] in known), len(word))
        if cut < len(word):
            endings[f"##{word[cut:]}"] += count
    return [*SPECIAL, *words, *most(endings, dataset.endings)]


def encode(texts: Sequence[str], vocabulary: dict[str, int], size: int) -> torch.Tensor:
    """Token ids [N, size]: START and the first pieces of each text, filled up with PADDING."""
    ids = torch.full((len(texts), size), PADDING)
    for row, text in zip(ids, texts, strict=True):
        own = [START, *(vocabulary[piece] for word in split_words(text) for piece in pieces(word, vocabulary))][:size]
        row[: len(own)] = torch.tensor(own)
    return ids


def tokenizer_config(vocabulary: Sequence[str]) -> dict:
    """tokenizer.json, which Hugging Face's libraries read: `encode` in their terms."""
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    start = SPECIAL[START]
    first, text = {"SpecialToken": {"id": start, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": token, **special} for index, token in enumerate(SPECIAL)],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, text],
            "pair": [first, text, second],
            "special_tokens": {start: {"id": start, "ids": [START], "tokens": [start]}},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": SPECIAL[UNKNOWN],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {token: index for index, token in enumerate(vocabulary)},
        },
    }


def load(dataset: TextSet, folder: Path, cache: Path) -> tuple[Split, Split]:
    """Training and validation part of train.tsv, whose names are their texts; writes the vocabulary of the training part to
    `cache`. Neither dev.tsv nor the test texts are read.
    """
    texts, labels = read(folder / "train.tsv")
    chosen = held_out(labels)
    vocabulary = vocabulary_of(dataset, [text for text, held in zip(texts, chosen.tolist(), strict=True) if not held])
    cache.mkdir(exist_ok=True)
    write_json(cache / f"{dataset.name}-tokenizer.json", tokenizer_config(vocabulary))
    whole = Split(encode(texts, {token: index for index, token in enumerate(vocabulary)}, dataset.size), labels, texts)
    return whole.take((~chosen).nonzero()[:, 0]), whole.take(chosen.nonzero()[:, 0])


def write_validation(dataset: TextSet, folder: Path, validation: Split, to: Path) -> None:
    """What certifies thresholds is dev.tsv: nothing was chosen on it, and nothing learnt from it."""
    if not to.exists():
        to.mkdir()
        shutil.copyfile(folder / "dev.tsv", to / "dev.tsv")


def resized(split: Split, size: int) -> Split:
    return split


def inputs(dataset: TextSet, ids: torch.Tensor) -> torch.Tensor:
    """Token ids [N, T] up to the end of the longest text."""
    return ids[:, : int((ids != PADDING).sum(1).max())]


def augmented(dataset: TextSet, ids: torch.Tensor, side: int, blank: float, generator: torch.Generator) -> torch.Tensor:
    """Random parts of `side` tokens of the texts that are longer, in which the share `blank` of the words is UNKNOWN."""
    lengths = (ids != PADDING).sum(1, keepdim=True)
    first = (torch.rand(lengths.shape, generator=generator) * ((lengths - side).clamp(min=0) + 1)).long()
    places = torch.arange(min(side, ids.shape[1])) + first
    cut = ids.gather(1, places)
    cut[:, 0] = START
    hidden = (torch.rand(cut.shape, generator=generator) < blank) & (cut >= len(SPECIAL))
    return inputs(dataset, cut.masked_fill(hidden, UNKNOWN))


def optimizer(parameters: Iterable[torch.nn.Parameter]) -> torch.optim.AdamW:
    return torch.optim.AdamW(decayed(parameters, WEIGHT_DECAY), betas=(0.9, 0.98), fused=True)


def network(dataset: TextSet, recipe: Recipe, shape: Shape, role: str) -> Encoder:
    return (ExitEncoder if role == "gated" else Encoder)(dataset.vocabulary, len(dataset.labels), *shape)


def feeds(dataset: TextSet, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """The inputs of a network's file."""
    ids = inputs(dataset, ids)
    return {"input_ids": ids, "attention_mask": (ids != PADDING).long()}


def write_configurations(dataset: TextSet, folder: Path, cache: Path) -> None:
    """What residual-skip needs beside model.onnx."""
    shutil.copyfile(cache / f"{dataset.name}-tokenizer.json", folder / "tokenizer.json")
    labels = {str(index): label for index, label in enumerate(dataset.labels)}
    write_json(folder / "config.json", {"max_position_embeddings": dataset.size, "id2label": labels})
