"""A small transformer encoder (Vaswani et al. 2017) whose layers have their norms in front, plain and with early exits."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from early_exits import EarlyExits

# Width of an attention head, and of an MLP's hidden layer as a multiple of the layer's own.
HEAD = 16
INNER = 2
# Tokens of the longest text; longer ones are cut.
LONGEST = 64
# The id of what fills a batch's shorter texts up, and of no word.
PADDING = 0

# The state of a batch of texts in the network: activations [N, T, C] and which tokens are words [N, T].
Texts = tuple[torch.Tensor, torch.Tensor]


class Layer(nn.Module):
    """x + attention(norm(x)), then y + MLP(norm(y)): two blocks that can be skipped."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.heads = width // HEAD
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.inner, self.outer = nn.Linear(width, INNER * width), nn.Linear(INNER * width, width)
        self.dropout = nn.Dropout(dropout)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, HEAD).permute(0, 2, 1, 3)

    def attention(self, x: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        hidden = (1.0 - words[:, None, None, :].to(x.dtype)) * -1e4
        weights = torch.softmax(torch.matmul(query, key.transpose(-1, -2)) * HEAD**-0.5 + hidden, -1)
        return self.output(torch.matmul(weights, value).permute(0, 2, 1, 3).reshape(x.shape))

    def forward(self, texts: Texts) -> Texts:
        x, words = texts
        x = x + self.dropout(self.attention(self.norm1(x), words))
        return x + self.dropout(self.outer(F.gelu(self.inner(self.norm2(x))))), words


class Encoder(nn.Module):
    """`depths` and `widths` are those of a ResNet of the protocol: layers and width per stage; all stages have one width."""

    def __init__(self, vocabulary: int, classes: int, depths: Sequence[int], widths: Sequence[int], dropout: float = 0.2):
        super().__init__()
        (width,) = set(widths)
        self.depths, self.widths = tuple(depths), tuple(widths)
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(LONGEST, width))
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.02)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Layer(width, dropout) for _ in range(sum(depths)))
        self.last_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def begin(self, ids: torch.Tensor, words: torch.Tensor | None = None) -> Texts:
        """The input of the first layer, of token ids [N, T]."""
        x = self.norm(self.words(ids) + self.positions[: ids.shape[1]])
        return x, (ids != PADDING if words is None else words)

    def end(self, texts: Texts) -> torch.Tensor:
        x, _ = texts
        return self.head(self.last_norm(x[:, 0]))

    def last(self, ids: torch.Tensor, words: torch.Tensor | None = None) -> Texts:
        """The output of the last layer, of token ids [N, T]."""
        texts = self.begin(ids, words)
        for block in self.blocks:
            texts = block(texts)
        return texts

    def forward(self, ids: torch.Tensor, words: torch.Tensor | None = None) -> torch.Tensor:
        """Logits [N, classes] of token ids [N, T]; `words` are 0 at padding, all tokens but PADDING are words without."""
        return self.end(self.last(ids, words))

    def costs(self, size: int) -> tuple[int, list[int]]:
        """Multiply-adds of the network and of each block for a text of `size` tokens."""
        width = self.widths[0]
        layer = size * (4 + 2 * INNER) * width**2 + 2 * size**2 * width
        return layer * len(self.blocks) + self.head.weight.numel(), [layer] * len(self.blocks)


class MaskedWords(nn.Module):
    """Fills in blanked words, so that an encoder learns from texts without labels (Devlin et al. 2019, BERT)."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        vocabulary, width = encoder.words.weight.shape
        self.hidden = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, ids: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """Logits [M, vocabulary] for the M tokens of `ids` [N, T] where `asked` [N, T] is true; the last layer's weights are the
        encoder's embeddings.
        """
        x, _ = self.encoder.last(ids)
        return F.linear(self.hidden(self.encoder.last_norm(x[asked])), self.encoder.words.weight, self.bias)


class ExitEncoder(EarlyExits, Encoder):
    """Exits follow all layers but the last; they see the first token, as the whole network's answer does."""

    def __init__(self, vocabulary: int, classes: int, depths: Sequence[int], widths: Sequence[int], dropout: float = 0.2):
        super().__init__(vocabulary, classes, depths, widths, dropout)
        self.add_exits([widths[0]] * len(self.blocks), classes)

    def seen(self, texts: Texts) -> torch.Tensor:
        x, _ = texts
        return x[:, 0]
