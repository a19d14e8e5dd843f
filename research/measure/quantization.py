"""
Accuracy of a float network, of its 8-bit form by `residual-skip quantize`, and of that by onnxruntime's own static quantiser
(QDQ, uint8 activations by extremes, int8 weights by channel) on the same images. onnxruntime runs all three.

    python3 research/measure/quantization.py MODEL_FOLDER QUANTISED.onnx CALIBRATION_IMAGES LABELLED_IMAGES [--classes 1,218,...]

The images are in one folder for each class, in the order of the model's classes, or of the indices in --classes.
Needs onnx, onnxruntime, numpy and Pillow (Debian: python3-onnx python3-onnxruntime python3-numpy python3-pil).
"""
import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx.reference  # noqa: F401  before onnxruntime, whose operator schemas would be in the way
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

MAX_CALIBRATED = 512


def preparation(folder: Path):
    config = json.loads((folder / "preprocessor_config.json").read_text())
    mean, deviation = (np.array(config[key], np.float32) for key in ("image_mean", "image_std"))

    def prepare(path: Path) -> np.ndarray:
        image = Image.open(path).convert("RGB" if len(mean) == 3 else "L")
        if size := config.get("size"):
            image = image.resize((size["width"], size["height"]), Image.BILINEAR)
        pixels = np.asarray(image, np.float32) * np.float32(config.get("rescale_factor", 1 / 255))
        return ((np.atleast_3d(pixels) - mean) / deviation).transpose(2, 0, 1)[None]

    return prepare


class Images(CalibrationDataReader):
    def __init__(self, name, paths, prepare):
        self.feeds = ({name: prepare(path)} for path in paths)

    def get_next(self):
        return next(self.feeds, None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("quantised", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("labelled", type=Path)
    parser.add_argument("--classes", type=lambda text: [int(part) for part in text.split(",")])
    options = parser.parse_args()
    prepare = preparation(options.folder)
    model = options.folder / "model.onnx"
    threads = ort.SessionOptions()
    threads.intra_op_num_threads = 1
    open_session = lambda path: ort.InferenceSession(str(path), threads, providers=["CPUExecutionProvider"])  # noqa: E731
    float_session = open_session(model)
    name = float_session.get_inputs()[0].name
    images = sorted(options.calibration.glob("*/*"))
    some = images[:: -(-len(images) // MAX_CALIBRATED)]
    with tempfile.TemporaryDirectory() as folder:
        prepared, rival = Path(folder, "prepared.onnx"), Path(folder, "rival.onnx")
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(rival),
            Images(name, some, prepare),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        sessions = {"float": float_session, "residual-skip": open_session(options.quantised), "onnxruntime": open_session(rival)}
        folders = sorted(path for path in options.labelled.iterdir() if path.is_dir())
        labels = options.classes or range(len(folders))
        right, changed, count = dict.fromkeys(sessions, 0), dict.fromkeys(sessions, 0), 0
        for label, each in zip(labels, folders, strict=True):
            for path in sorted(each.iterdir()):
                feeds = {name: prepare(path)}
                answers = {key: int(session.run(None, feeds)[0].argmax()) for key, session in sessions.items()}
                count += 1
                for key, answer in answers.items():
                    right[key] += answer == label
                    changed[key] += answer != answers["float"]
        for key in sessions:
            print(f"{key}: {right[key] / count:.2%} right, {changed[key]} of {count} answers changed")


main()
