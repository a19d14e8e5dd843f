"""Encoders of text as Hugging Face's BERT computes them, and vision transformers as timm's ViT does, from their papers
(Devlin et al. 2018; Dosovitskiy et al. 2020; Touvron et al. 2020): what exporters make of the usual ways to write attention.
"""
import math

import torch
import torch.nn as nn


class SelfAttention(nn.Module):
    """Three projections; heads are split by view and permute, scores are divided by the root of the head's width."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, -1).permute(0, 2, 1, 3)

    def forward(self, x, mask):
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
        context = torch.matmul(torch.softmax(scores + mask, dim=-1), value).permute(0, 2, 1, 3).contiguous()
        return self.output(context.view(x.shape))


class PostNormLayer(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))

    def forward(self, x, mask):
        x = self.norm1(self.attention(x, mask) + x)
        return self.norm2(self.mlp(x) + x)


class TextEncoder(nn.Module):
    """BERT without its pooler: ids, mask and types in, the last hidden state out."""

    def __init__(self, layers, width, heads, words=30522, positions=512):
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(positions, width)
        self.types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(PostNormLayer(width, heads, 4 * width) for _ in range(layers))
        self.register_buffer("places", torch.arange(positions).expand(1, -1))

    def forward(self, input_ids, attention_mask, token_type_ids):
        places = self.places[:, : input_ids.shape[1]]
        x = self.norm(self.words(input_ids) + self.types(token_type_ids) + self.positions(places))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)
        return x


class JointAttention(nn.Module):
    """One projection to queries, keys and values, split by reshape and permute(2, 0, 3, 1, 4)."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        items, tokens, width = x.shape
        qkv = self.qkv(x).reshape(items, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        scores = (query * (width // self.heads) ** -0.5) @ key.transpose(-2, -1)
        return self.output((scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(items, tokens, width))


class PreNormLayer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = JointAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ImageTransformer(nn.Module):
    """ViT or DeiT on images of 224 pixels in patches of 16."""

    def __init__(self, layers, width, heads):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.places = nn.Parameter(torch.randn(1, 197, width) * 0.02)
        self.layers = nn.Sequential(*(PreNormLayer(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 1000)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), dim=1) + self.places
        return self.head(self.norm(self.layers(x))[:, 0])
