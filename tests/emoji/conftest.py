"""What the tests of the training share."""

import pytest
from transformers import CLIPTokenizer


@pytest.fixture(scope="session")
def tokenizer():
    """Letters only, without merges."""
    letters = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in "abcdefghijklmnopqrstuvwxyz,":
        letters[letter] = len(letters)
        letters[letter + "</w>"] = len(letters)
    return CLIPTokenizer(vocab=letters, merges=[], model_max_length=12)
