"""Make the plain English that ships with palimpsest: sampled from smollm2 itself, seeded, so that it may be shipped.

    python tools/sample_text.py            # writes src/palimpsest/facts/data/plain-english.txt

Each document begins with one of the openings below (written for this project) and goes on with what SmolLM2-135M-Instruct
(Apache-2.0) samples after it: temperature 1, top-p 0.95, 160 tokens, end-of-text suppressed, seed 0. Documents with code
or markup are dropped by the rule `is_prose`; the others are joined by blank lines. No benchmark text is involved.
"""

import os
import re
import sys
from pathlib import Path

import torch

from palimpsest.model import load

OPENINGS = """
The river begins in the mountains and | In the nineteenth century, the town | Scientists have long known that | The old library stood
Most birds build their nests | During the war, the government | The recipe calls for | A good teacher | The company was founded
When the rain finally stopped, | Trade between the two countries | Her first novel | The human heart | Many people believe that
The bridge was built | Farmers in the region | The committee decided | Early trains were | On a clear night, | The museum holds
Children learn to | The island is home to | In music, a | The king ordered | Economists disagree about | A small ship
The forest covers | His brother worked as | The first step is to | Modern medicine has | The festival takes place | Glass is made
After the election, | The language is spoken | Steel production | A healthy diet | The painter spent | Each spring, the
The law requires | In ancient times, | The team won | Water boils | The road to the coast | She opened the letter and
The actor is best known for | The desert receives | Wolves live in | The city's main square | Electric cars | The treaty was signed
Soldiers marched | Bread has been | The moon has no | A famous story tells of | The university offers | Coal mines
The theory explains why | Sailors used to | The harvest failed | At the market, | The film tells the story of | Winters there are
""".replace("\n", "|")
SAMPLES, TOKENS, ROWS, SEED = 8, 160, 44, 0


def is_prose(text: str) -> bool:
    """Whether a document is running English: no code, markup or tables, and nearly all of it plain characters."""
    if re.search(r"```|def |import |[{}<>|=\\#*_]|http", text):
        return False
    plain = sum(ch.isascii() and (ch.isalnum() or ch in " .,;:'\"!?()-\n") for ch in text)
    return plain >= 0.98 * len(text)


@torch.no_grad()
def main() -> None:
    """Sample, filter, write."""
    target = Path(__file__).parents[1] / "src/palimpsest/facts/data/plain-english.txt"
    model = load("smollm2", check=False)
    openings = [text.strip() for text in OPENINGS.split("|") if text.strip()]
    special = list(model.tokenizer.all_special_ids)
    torch.manual_seed(SEED)
    documents: list[str] = []
    for _ in range(SAMPLES):
        for begin in range(0, len(openings), ROWS):
            chunk = openings[begin : begin + ROWS]
            by_length: dict[int, list[list[int]]] = {}
            for text in chunk:  # rows of one length need no padding
                ids = model.tokenizer(text).input_ids
                by_length.setdefault(len(ids), []).append(ids)
            for rows in by_length.values():
                ids = torch.tensor(rows)
                sampled = model.net.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=True,
                    temperature=1.0,
                    top_p=0.95,
                    top_k=0,
                    max_new_tokens=TOKENS,
                    min_new_tokens=TOKENS,
                    suppress_tokens=special,
                    pad_token_id=0,
                )
                documents += [model.tokenizer.decode(row) for row in sampled]
        kept = [text.strip() for text in documents if is_prose(text)]
        count = sum(len(model.tokenizer(text).input_ids) for text in kept)
        print(f"{len(documents)} documents, {len(kept)} kept, {count} tokens", file=sys.stderr, flush=True)
    kept = [re.sub(r"\n\s*\n", "\n", text) for text in kept]
    scratch = target.with_suffix(".partial")
    scratch.write_text("\n\n".join(kept) + "\n", encoding="utf-8")
    os.replace(scratch, target)


if __name__ == "__main__":
    main()
