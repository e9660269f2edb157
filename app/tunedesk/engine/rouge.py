"""How near a written text comes to the right one: ROUGE-L and word-by-word equality, for any script.

ROUGE-L is the F1 of the longest common subsequence of words (Lin 2004, section 3). The package rouge-score drops all
but a to z and digits, so that texts in other scripts score 0; here a word is what Unicode calls letters, marks and
digits. Chinese, Japanese and the scripts of South-East Asia are written without spaces: there each character is a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_SPACELESS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # Kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_SPACELESS_CHARACTER = re.compile(f"[{_SPACELESS}]")


def words(text: str) -> list[str]:
    """The words of `text` in lower case, without punctuation and symbols."""
    found: list[str] = []
    inside = False
    for character in unicodedata.normalize("NFC", text).lower():
        kind = unicodedata.category(character)[0]
        if kind == "M" and inside:  # an accent, a vowel sign: part of what it stands on
            found[-1] += character
            continue
        alone = _SPACELESS_CHARACTER.match(character) is not None
        if kind not in "LNM":
            inside = False
        elif inside and not alone and not _SPACELESS_CHARACTER.match(found[-1]):
            found[-1] += character
        else:
            found.append(character)
            inside = True
    return found


def rouge_l(written: str, right: str) -> float:
    """F1 of the longest common subsequence of words, 0 to 1. Where one has no words, whether both are the same."""
    mine, other = words(written), words(right)
    if not mine or not other:
        return float(same_words(written, right))
    common = longest_common(mine, other)
    return 2 * common / (len(mine) + len(other))  # 2pr / (p + r), with p and r the shares of the two lengths


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for mine in one:
        corner = 0
        for place, its in enumerate(other, start=1):
            above = row[place]
            row[place] = corner + 1 if mine == its else max(above, row[place - 1])
            corner = above
    return row[-1]


def same_words(written: str, right: str) -> bool:
    """Whether the texts are the same but for white space."""
    return written.split() == right.split()
