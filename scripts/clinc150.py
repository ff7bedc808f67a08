#!/usr/bin/env python3
"""Makes the task of `tunesmith bench methods` from clinc150 (Larson et al. 2019, data_small.json.gz): queries with the
name of their intent.

    scripts/clinc150.py data_small.json.gz OUT [STEPS [BATCH]]

writes OUT/train.jsonl, the records that STEPS steps of BATCH rows see once, and OUT/test.jsonl, 200 questions.
"""

import gzip
import json
import os
import random
import sys


def main(source, out, steps=150, batch=16):
    parts = json.load(gzip.open(source))
    train, test = parts["train"], parts["test"]
    random.seed(0)
    random.shuffle(train)
    random.shuffle(test)
    os.makedirs(out, exist_ok=True)

    def write(name, pairs, first, second, lead):
        with open(os.path.join(out, name), "w", encoding="utf-8") as f:
            for query, intent in pairs:
                row = {first: f"Query: {query}\nIntent:", second: lead + intent.replace("_", " ")}
                f.write(json.dumps(row, ensure_ascii=False) + "\n")

    write("train.jsonl", train[: int(steps) * int(batch)], "prompt", "completion", " ")
    write("test.jsonl", test[:200], "text", "answer", "")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
