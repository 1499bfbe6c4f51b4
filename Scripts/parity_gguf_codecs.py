#!/usr/bin/env python3
"""Whether our GGUF block codecs are as good and as fast as llama.cpp's, type by type.

    python Scripts/parity_gguf_codecs.py [--ggml LIBGGML-BASE.SO] [--model model.safetensors] [--quick]

Builds Sources/CKernels/blocks_*.c and rows.c with clang into a temporary folder and calls them beside
`ggml_quantize_chunk` of libggml (the one inside llama-cpp-python unless named). For each type: whether
bytes are equal without importance; our squared error over theirs, without importance (plain) and with
the same importance (weighted by it), the worst of several matrices; whether both decoders agree on
random bytes; and on one thread the speeds of encoding from float32 without and with importance, of
converting from float16 (theirs as its quantizer does it, ours with the error measured) and decoding.
Ends with 1 when a ratio of errors exceeds 1, bytes that must be equal are not, or decoders disagree.
Needs numpy; reads a model with safetensors. Checked with llama-cpp-python 0.3.36.
"""
import argparse
import ctypes
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
KERNELS = ROOT / "Sources/CKernels"
# name: number, block length, bytes, libggml's decoder
TYPES = {
    "Q4_0": (2, 32, 18, "q4_0"), "Q4_1": (3, 32, 20, "q4_1"), "Q5_0": (6, 32, 22, "q5_0"),
    "Q5_1": (7, 32, 24, "q5_1"), "Q8_0": (8, 32, 34, "q8_0"), "Q2_K": (10, 256, 84, "q2_K"),
    "Q3_K": (11, 256, 110, "q3_K"), "Q4_K": (12, 256, 144, "q4_K"), "Q5_K": (13, 256, 176, "q5_K"),
    "Q6_K": (14, 256, 210, "q6_K"), "IQ4_NL": (20, 32, 18, "iq4_nl"),
    "IQ4_XS": (23, 256, 136, "iq4_xs"), "TQ1_0": (34, 256, 54, "tq1_0"),
    "TQ2_0": (35, 256, 66, "tq2_0"), "MXFP4": (39, 32, 17, "mxfp4"),
}
EQUAL = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4"}
# Where the position of the scales is, as halves from the block's start: kept finite in random bytes.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
    "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
    "TQ1_0": [52], "TQ2_0": [64], "MXFP4": [],
}
# A whole matrix in one call, so that Python's calls are not what is timed.
ROWS = """
#include "blocks.h"
#include "rows.h"
#include <stdlib.h>
int encode_rows(int level, int type, const float *x, size_t rows, size_t columns,
                const float *importance, char *out, size_t row_bytes) {
  size_t fault;
  for (size_t row = 0; row < rows; row++)
    if (pare_block_encode_at(level, type, x + row * columns, columns, importance,
                             out + row * row_bytes, &fault)) return 1;
  return 0;
}
/* What GGUFBlocks.encode does with a row of a mapped float16 tensor. */
double pass_f16(int type, const char *x, size_t rows, size_t columns, char *out, size_t row_bytes) {
  float *row = malloc(8 * columns), *opened = row + columns;
  struct pare_block_error sums = {0};
  size_t fault;
  for (size_t i = 0; i < rows; i++) {
    pare_f16_to_f32(x + 2 * i * columns, row, columns);
    if (pare_block_encode(type, row, columns, 0, out + i * row_bytes, &fault)) return -1;
    pare_block_decode(type, out + i * row_bytes, columns, opened);
    pare_block_compare(row, opened, columns, &sums);
  }
  free(row);
  return sums.squared_error;
}
"""
FLOATS = ctypes.POINTER(ctypes.c_float)


def floats(array):
    return None if array is None else array.ctypes.data_as(FLOATS)


class Ours:
    def __init__(self, folder):
        library = f"{folder}/blocks.so"
        (pathlib.Path(folder) / "rows_of_blocks.c").write_text(ROWS)
        sources = [f"{folder}/rows_of_blocks.c"]
        sources += [str(p) for p in sorted(KERNELS.glob("blocks_*.c"))] + [str(KERNELS / "rows.c")]
        subprocess.run(
            ["clang", "-O2", "-fPIC", "-shared", "-lm", f"-I{KERNELS}/include", *sources, "-o",
             library], check=True)
        self.c = ctypes.CDLL(library)
        size, pointer = ctypes.c_size_t, ctypes.c_void_p
        self.c.encode_rows.argtypes = [
            ctypes.c_int, ctypes.c_int, pointer, size, size, pointer, pointer, size]
        self.c.pass_f16.argtypes = [ctypes.c_int, pointer, size, size, pointer, size]
        self.c.pass_f16.restype = ctypes.c_double
        self.c.pare_block_decode.argtypes = [ctypes.c_int, pointer, size, FLOATS]
        self.c.pare_block_decode_reference.argtypes = [ctypes.c_int, pointer, size, FLOATS]

    def encode(self, name, x, importance=None, level=2):
        number, length, size, _ = TYPES[name]
        rows, columns = x.shape
        out = np.zeros((rows, columns // length * size), np.uint8)
        weights = None if importance is None else importance.ctypes.data
        status = self.c.encode_rows(
            level, number, x.ctypes.data, rows, columns, weights, out.ctypes.data, out.shape[1])
        assert status == 0, name
        return out

    def decode(self, name, blocks, columns, reference=False):
        out = np.zeros((blocks.shape[0], columns), np.float32)
        call = self.c.pare_block_decode_reference if reference else self.c.pare_block_decode
        call(TYPES[name][0], blocks.ctypes.data, out.size, floats(out))
        return out


    def convert(self, name, halves, out):
        """A float16 matrix to blocks, with the error measured."""
        rows, columns = halves.shape
        self.c.pass_f16(
            TYPES[name][0], halves.ctypes.data, rows, columns, out.ctypes.data, out.shape[1])


class Theirs:
    def __init__(self, path):
        self.c = ctypes.CDLL(path)
        self.c.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.c.ggml_quantize_chunk.argtypes = [
            ctypes.c_int, FLOATS, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64,
            FLOATS]

    def encode(self, name, x, importance=None):
        number, length, size, _ = TYPES[name]
        rows, columns = x.shape
        out = np.zeros((rows, columns // length * size), np.uint8)
        self.c.ggml_quantize_chunk(
            number, floats(x), out.ctypes.data, 0, rows, columns, floats(importance))
        return out

    def convert(self, name, halves, wide, out):
        """A float16 matrix to blocks as llama.cpp's quantizer does it: widened, encoded, checked."""
        self.c.ggml_fp16_to_fp32_row.argtypes = [ctypes.c_void_p, FLOATS, ctypes.c_int64]
        self.c.ggml_fp16_to_fp32_row(halves.ctypes.data, floats(wide), halves.size)
        rows, columns = halves.shape
        self.c.ggml_quantize_chunk(
            TYPES[name][0], floats(wide), out.ctypes.data, 0, rows, columns, None)
        self.c.ggml_validate_row_data.argtypes = [
            ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
        self.c.ggml_validate_row_data(TYPES[name][0], out.ctypes.data, out.size)

    def decode(self, name, blocks, columns):
        out = np.zeros((blocks.shape[0], columns), np.float32)
        call = getattr(self.c, "dequantize_row_" + TYPES[name][3])
        call.argtypes = [ctypes.c_void_p, FLOATS, ctypes.c_int64]
        call.restype = None
        call(blocks.ctypes.data, floats(out), out.size)
        return out


def bundled():
    import llama_cpp
    return str(next((pathlib.Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.so")))


def matrices(model):
    random = np.random.default_rng(20260801)
    cases = {
        "normal": random.normal(0, 0.02, (32, 2048)),
        "tailed": random.standard_t(4, (32, 2048)) * 0.02,
        "uniform": random.uniform(-1, 1, (32, 2048)),
        "offset": random.normal(0.03, 0.02, (16, 2048)),
        "sparse": random.normal(0, 0.02, (16, 2048)) * (random.random((16, 2048)) < 0.1),
        "levels": random.integers(-3, 4, (16, 2048)) * 0.01,
        "constants": np.repeat(random.normal(0, 0.02, (16, 128)), 16, axis=1),
        "outliers": random.normal(0, 0.02, (32, 2048))
        * np.where(random.random((32, 2048)) < 0.01, 8, 1),
    }
    if model:
        from safetensors import safe_open
        with safe_open(model, "pt") as file:
            for key in file.keys():
                tensor = file.get_tensor(key)
                if tensor.dim() != 2 or tensor.shape[1] % 256 or "layers.1." not in key:
                    continue
                cases[key.replace("model.layers.", "")] = tensor.float().numpy()
    return {
        name: (np.ascontiguousarray(x, np.float32),
               np.exp(random.normal(0, 1.5, x.shape[1])).astype(np.float32))
        for name, x in cases.items()
    }


def ratio(ours, theirs):
    return 1.0 if ours == theirs else ours / theirs if theirs > 0 else np.inf


def seconds(call, repeat=3):
    best = 1e9
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def decoders_agree(name, ours, theirs):
    random = np.random.default_rng(1)
    _, length, size, _ = TYPES[name]
    raw = random.integers(0, 256, (8, 16, size), np.uint8)
    for at in HALVES[name]:
        raw[:, :, at:at + 2] = random.normal(0, 1, (8, 16)).astype(np.float16).view(
            np.uint8).reshape(8, 16, 2)
    if name == "MXFP4":
        raw[:, :, 0] %= 250
    raw = raw.reshape(8, -1)
    a = ours.decode(name, raw, 16 * length)
    b = ours.decode(name, raw, 16 * length, reference=True)
    return np.array_equal(a, b) and np.array_equal(a, theirs.decode(name, raw, 16 * length))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ggml")
    parser.add_argument("--model", default=ROOT / "Sources/Recipes/Resources/stories/model.safetensors")
    parser.add_argument("--types", nargs="*", default=list(TYPES))
    parser.add_argument("--quick", action="store_true", help="leave speeds out")
    parser.add_argument("--detail", action="store_true", help="print each matrix's ratios")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Ours(folder), Theirs(options.ggml or bundled())
        cases = matrices(options.model)
        print(f"{'type':7} bytes  {'error':>6} {'weighted':>8}  decode  "
              "M weights/s (ours, theirs, ratio): encode | weighted | from float16 | decode")
        for name in options.types:
            plain, weighted, equal = [], [], True
            for case, (x, importance) in cases.items():
                columns = x.shape[1]
                a, b = ours.encode(name, x), theirs.encode(name, x)
                equal = equal and np.array_equal(a, b)
                for level in (0, 1):
                    if not np.array_equal(a, ours.encode(name, x, level=level)):
                        print(f"{name}: instruction sets give different bytes")
                        failed = True
                error = [((ours.decode(name, q, columns).astype(np.float64) - x) ** 2).sum()
                         for q in (a, b)]
                plain.append(ratio(*error))
                a, b = ours.encode(name, x, importance), theirs.encode(name, x, importance)
                error = [
                    ((ours.decode(name, q, columns).astype(np.float64) - x) ** 2
                     * importance).sum() for q in (a, b)]
                weighted.append(ratio(*error))
                if options.detail:
                    print(f"    {case:30} {plain[-1]:.4f} {weighted[-1]:.4f}")
            agree = decoders_agree(name, ours, theirs)
            wrong = (max(plain + weighted) > 1 or not agree or (name in EQUAL and not equal))
            failed = failed or wrong
            line = (f"{name:7} {'equal' if equal else 'own':6} {max(plain):.4f} {max(weighted):8.4f}"
                    f"  {'agree' if agree else 'DIFFER':6}")
            if not options.quick:
                random = np.random.default_rng(3)
                x = random.normal(0, 0.02, (64, 4096)).astype(np.float32)
                importance = np.exp(random.normal(0, 1.5, 4096)).astype(np.float32)
                blocks = ours.encode(name, x)
                rates = [
                    x.size / 1e6 / seconds(call) for call in (
                        lambda: ours.encode(name, x), lambda: theirs.encode(name, x),
                        lambda: ours.encode(name, x, importance),
                        lambda: theirs.encode(name, x, importance),
                        lambda: ours.decode(name, blocks, 4096),
                        lambda: theirs.decode(name, blocks, 4096))]
                halves = random.normal(0, 0.02, (2048, 2048)).astype(np.float16)
                out = np.zeros((2048, 2048 // TYPES[name][1] * TYPES[name][2]), np.uint8)
                wide = np.zeros(halves.shape, np.float32)
                passes = [
                    halves.size / 1e6 / seconds(call) for call in (
                        lambda: ours.convert(name, halves, out),
                        lambda: theirs.convert(name, halves, wide, out))]
                line += (f"  {rates[0]:7.1f} {rates[1]:7.1f} {rates[0] / rates[1]:6.2f}"
                         f"  {rates[2]:7.1f} {rates[3]:7.1f} {rates[2] / rates[3]:6.2f}"
                         f"  {passes[0]:7.1f} {passes[1]:7.1f} {passes[0] / passes[1]:6.2f}"
                         f"  {rates[4]:7.0f} {rates[5]:7.0f}")
            print(line + ("  <-- worse" if wrong else ""), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
