"""The words of a text, as the full-text index has them: also in scripts that are written without spaces.

SQLite's tokenizer takes a clause of Chinese, Japanese or Thai for one word. So of such text the index has, beside it,
the overlapping pairs of its letters, as Lucene's CJKBigramFilter makes them; of alphabets the overlapping threes.
Invariants: each letter begins one gram, so that a word that is shorter than a gram is found as the beginning of one;
text without such letters has no grams, and costs nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_SYLLABLES = (
    "\u1100-\u11ff\u3005-\u3007\u3040-\u318f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f"
    "\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff"
)
"""Chinese characters, the syllables of Japanese, and Korean, whose words carry their endings."""
_LETTERS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Thai, Lao, Burmese and Khmer."""
_RUN = re.compile(f"([{_SYLLABLES}]+)|([{_LETTERS}]+)")
_PAIR, _THREE = 2, 3
_WORD = re.compile(r"\w+")
STOP_WORDS = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not",
    "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was",
    "will", "with",
))  # fmt: skip
"""Lucene's, of EnglishAnalyzer. They are in most texts, so that they rank nothing, and cost the most to look for."""


def grams_of(text: str) -> str:
    """What the index has beside a text, with spaces between; "" where its own spaces part its words."""
    if text.isascii() or _RUN.search(text) is None:
        return ""
    made = list[str]()
    for word in _words(text):
        for part, size in _parts(word):
            if size:
                made += (part[start : start + size] for start in range(len(part)))
            elif part != word:
                made.append(part)
    return " ".join(made)


def terms_of(text: str) -> list[str]:
    """What a question looks for, each once, in FTS5's language: its words, but stop words only where it has no others.

    A word without spaces around it is looked for by its grams, and one that is shorter by what begins so.
    """
    words, grams = dict[str, None](), dict[str, None]()
    for word in _words(text.lower()):
        for part, size in _parts(word):
            if not size:
                words[part] = None
            elif len(part) < size:
                grams[f'"{part}" *'] = None
            else:
                grams |= {f'"{part[start : start + size]}"': None for start in range(len(part) - size + 1)}
    kept = [word for word in words if word not in STOP_WORDS] or ([] if grams else list(words))
    return [*(f'"{word}"' for word in kept), *grams]


def _words(text: str) -> list[str]:
    """Letters and digits that stand together, with the marks on them: the vowels of Hindi or Thai, say."""
    if text.isascii():
        return _WORD.findall(text)
    return "".join(
        c if c.isalnum() or c == "_" or unicodedata.category(c) in ("Mn", "Mc") else " " for c in text
    ).split()


def _parts(word: str) -> Iterator[tuple[str, int]]:
    """A word where its script changes, each part with the length of its grams, 0 for a word of its own."""
    done = 0
    for run in _RUN.finditer(word):
        if run.start() > done:
            yield word[done : run.start()], 0
        yield run[0], _PAIR if run[1] else _THREE
        done = run.end()
    if done < len(word):
        yield word[done:], 0
