"""Finished images and scores on disk, found again by what they are made of: nothing is drawn or scored twice.

A folder holds ``images/ab/<key>.webp``, lossless, with its description inside, and ``index.sqlite``::

    meta   (name TEXT PRIMARY KEY, value TEXT)   schema = 2
    images (key TEXT PRIMARY KEY, description TEXT, bytes INTEGER, made REAL)
           description: the JSON whose sha256 is the key; size of the file; seconds since 1970; NULL: not known
    scores (image_key TEXT, reward_key TEXT, score REAL, PRIMARY KEY (image_key, reward_key))
    notes  (image_key TEXT, kind TEXT, content TEXT, PRIMARY KEY (image_key, kind))   JSON, such as an image's looks

Stores of schema 1, whose images are PNG, are read as they are and get the new columns when they are opened for writing.
Several processes may write at once. A file appears whole or not at all, and its row is written after it, so a process
that is killed loses at most what it had in hand. A lost index is built again from the images.
"""

from pagopt.store.contents import Contents, contents
from pagopt.store.export import export
from pagopt.store.merge import Merged, merge
from pagopt.store.prune import Pruned, needed_by, prune
from pagopt.store.store import Store
from pagopt.store.verify import Findings, verify

__all__ = [
    "Contents",
    "Findings",
    "Merged",
    "Pruned",
    "Store",
    "contents",
    "export",
    "merge",
    "needed_by",
    "prune",
    "verify",
]
