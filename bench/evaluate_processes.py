"""Two processes on two cores against one process on one, and one careless batch a record beside them: CounterFact, smollm2.

    PALIMPSEST_RECORDS=data/ python bench/evaluate_processes.py [--records 100] [--processes 2]

Every process has one thread. The processes are told their places by RANK and WORLD_SIZE, as `accelerate launch` and `torchrun`
tell them, share one folder, and the first merges; what is compared at the end are the bytes of the files. The careless batch is
what one writes second: all prompts and answers of a record padded into one forward pass, logits taken everywhere. Times are of the
evaluation alone, without loading the model; the processes begin together once both have loaded it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
READY = """
import sys, torch
import palimpsest as pal
torch.set_num_threads(1)
model = pal.load("smollm2")
facts = list(pal.read_facts(sys.argv[1], limit=int(sys.argv[2])))
print("ready", flush=True)
sys.stdin.readline()
"""
EVALUATE = """
pal.evaluate(model, facts, out=sys.argv[3])
"""
CARELESS = """
net, tokenizer = model.net, model.tokenizer
with torch.no_grad(), model.evaluating():
    for fact in facts:
        texts = [*fact.wordings, *(probe.prompt for probe in fact.neighbours)]
        rows = [tokenizer(f"{text} {answer}").input_ids for text in texts for answer in (fact.target_true, fact.target_new)]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        net(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
"""


def seconds(code: str, source: Path, records: int, folder: Path, processes: int) -> float:
    """Wall clock from the common start to the end of the last process."""
    started = []
    for rank in range(processes):
        place = {"RANK": str(rank), "WORLD_SIZE": str(processes)} if processes > 1 else {}
        command = [sys.executable, "-c", READY + code, str(source), str(records), str(folder)]
        environment = {**os.environ, **place, "OMP_NUM_THREADS": "1"}
        started.append(
            subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    start = time.perf_counter()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    if any(process.wait() for process in started):
        raise SystemExit("A process failed; see above.")
    return time.perf_counter() - start


def main() -> None:
    """Measure, print one JSON object, and keep it when all records were asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    source = Path(os.environ["PALIMPSEST_RECORDS"]) / "counterfact" / "counterfact.json"
    with tempfile.TemporaryDirectory() as place:
        one, many = Path(place, "one"), Path(place, "many")
        alone = seconds(EVALUATE, source, given.records, one, 1)
        careless = seconds(CARELESS, source, given.records, Path(place), 1)
        together = seconds(EVALUATE, source, given.records, many, given.processes)
        same = all(
            (one / name).read_bytes() == (many / name).read_bytes() for name in ("samples.jsonl", "results.json")
        )
    result = {
        "records": given.records,
        "processes": given.processes,
        "one_process_seconds": round(alone, 1),
        "processes_seconds": round(together, 1),
        "measured_ratio": round(alone / together, 2),
        "careless_batch_seconds": round(careless, 1),
        "careless_ratio": round(careless / alone, 2),
        "identical_files": same,
    }
    print(json.dumps(result))
    if given.records >= 100:
        (ROOT / "results" / "bench-evaluate-processes.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
