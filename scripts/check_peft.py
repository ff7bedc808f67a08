#!/usr/bin/env python3
"""Proves with PEFT and transformers that what tunesmith hands over is read elsewhere with the same result.

    python3 -m venv venv && venv/bin/pip install torch transformers peft gguf
    venv/bin/python scripts/check_peft.py MODEL.gguf [FOLDER]

MODEL.gguf is SmolLM2-135M-Instruct (scripts/fetch_smollm2 downloads it). tunesmith writes it as a directory, trains
adapters on it, merges them and notes its own logits (go test -tags e2e ./methods -run TestHandOver); here PEFT loads
each adapter, transformers each merged directory and GGUF file, and the logits are compared. Ends with an error if one
differs by more than 1e-3.
"""
import os
import subprocess
import sys
import tempfile

os.environ["TQDM_DISABLE"] = "1"  # read as the libraries are loaded

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

MOST = 1e-3
failed = False
logging.set_verbosity_error()


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids[None]).logits[0].float()


def compare(what, model, noted):
    global failed
    worst, top = 0.0, 0
    rows = sorted(k[4:] for k in noted if k.startswith("ids."))
    total = 0
    for r in rows:
        have, want = logits(model, noted["ids." + r].long()), noted["logits." + r]
        worst = max(worst, float((have - want).abs().max()))
        top += int((have.argmax(-1) == want.argmax(-1)).sum())
        total += len(want)
    ok = worst <= MOST
    failed |= not ok
    print(f"{what:32} largest difference {worst:.2e}, same first choice at {top} of {total} positions{'' if ok else '  FAILED'}", flush=True)


def load(path, **more):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager", **more).eval()


def from_gguf(path):
    folder, name = os.path.split(path)
    return load(folder, gguf_file=name)


def main():
    global failed
    gguf = os.path.abspath(sys.argv[1])
    out = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else tempfile.mkdtemp()
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    env = dict(os.environ, TUNESMITH_SMOLLM2=gguf, TUNESMITH_HANDOVER=out)
    subprocess.run(["go", "test", "-tags=e2e", "-count=1", "-run", "^TestHandOver$", "./methods"], cwd=root, env=env, check=True)

    base = os.path.join(out, "base")
    noted = load_file(os.path.join(out, "base.safetensors"))
    compare("base, transformers", load(base), noted)
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = sorted(k for k in noted if k.startswith("ids."))
    for row in rows:
        ids = noted[row].long().tolist()
        again = tokenizer(tokenizer.decode(ids), add_special_tokens=False)["input_ids"]
        if again != ids:
            failed = True
            print(f"tokenizer: {ids} became {again}  FAILED")
    turn = [{"role": "user", "content": "Hello"}]
    print(f"{'tokenizer':32} {len(rows)} texts, chat template gives {tokenizer.apply_chat_template(turn, tokenize=False)!r}")
    for name in sorted(os.listdir(out)):
        folder = os.path.join(out, name)
        if not os.path.isdir(os.path.join(folder, "adapter")):
            continue
        noted = load_file(os.path.join(folder, "logits.safetensors"))
        compare(f"{name}, PEFT", PeftModel.from_pretrained(load(base), os.path.join(folder, "adapter")).eval(), noted)
        compare(f"{name}, merged, transformers", load(os.path.join(folder, "merged")), noted)
        compare(f"{name}, merged GGUF", from_gguf(os.path.join(folder, "merged.gguf")), noted)
    sys.exit(failed)


main()
