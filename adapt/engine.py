"""What residual-skip makes of a network: its blocks, and its answers."""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
RUN = """
const [, entry, model, policy, file, shape] = process.argv;
const { InferenceSession, Tensor } = await import(entry);
const { readFileSync, writeFileSync } = await import('node:fs');
const data = new Float32Array(new Uint8Array(readFileSync(file)).buffer);
const session = await InferenceSession.create(model, { policy });
const input = { [session.inputNames[0]]: new Tensor('float32', data, JSON.parse(shape)) };
const { outputs, trace } = await session.runTraced(input);
writeFileSync(file, new Uint8Array(outputs[session.outputNames[0]].data.slice().buffer));
const exits = trace.items.map(({ exits }) => exits.find(({ taken }) => taken)?.after ?? null);
console.log(JSON.stringify({ exits, shape: outputs[session.outputNames[0]].dims }));
await session.release();
"""


def node(*arguments: str) -> str:
    done = subprocess.run(["node", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"residual-skip failed: {done.stderr.strip()}")
    return done.stdout


def package() -> dict:
    return json.loads((ROOT / "package.json").read_text())


def inspect(file: Path) -> dict:
    """The answer of `residual-skip inspect --json`."""
    return json.loads(node(str(ROOT / package()["bin"]["residual-skip"]), "inspect", str(file), "--json"))


@dataclass
class Answers:
    """`values` as the engine has them, float32 [N, classes]; `exits` names the block behind which each image left."""

    values: np.ndarray
    exits: list[str | None]


def run(model: Path, images: np.ndarray, policy: str) -> Answers:
    """Answers to float32 images [N, C, height, width]; `policy` is 'full', 'model' or a file."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(np.ascontiguousarray(images, np.float32).tobytes())
        entry = (ROOT / package()["main"]).resolve().as_uri()
        arguments = [entry, str(model), policy, file.name, json.dumps(list(images.shape))]
        report = json.loads(node("--input-type=module", "-e", RUN, *arguments))
        values = np.frombuffer(Path(file.name).read_bytes(), np.float32).reshape(report["shape"])
    return Answers(values, report["exits"])
