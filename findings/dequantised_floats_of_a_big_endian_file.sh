#!/usr/bin/env bash
# gguf, quants.dequantize: a float32 tensor of a big-endian file comes out as other numbers than the reader gave.
#
# Versions: gguf 0.19.0, numpy 2.4.1, on a little-endian machine.
# Guess:    GGUFReader reads files of both byte orders, and says which. dequantize(tensor.data, tensor.tensor_type), as its
#           users call it for every tensor of a file, is then the same for both; of F32 it is the numbers themselves.
# Behaviour: tensor.data is right, an array whose dtype is big-endian. dequantize() views it as this machine's float32 or
#           float16 and so drops that: 1.0 becomes 4.6e-41. No error, no warning. What GGUFWriter with endianess BIG
#           writes of Q8_0 has this machine's order, unlike its header, so it does come back, and a round trip with
#           quantised tensors alone passes.
# Why it matters: converters call dequantize() for every tensor. Weights near zero make a model whose tokens are all as
#           likely as each other, and nothing says that the file was read in the wrong order.
# Output seen:
#   F32: data 1.0 -2.0, dequantised 4.6006e-41 2.69049e-43, bytes as in a little-endian file False
#   F16: data 1.0 -2.0, dequantised 3.57628e-06 1.14441e-05, bytes as in a little-endian file False
#   Q8_0: dequantised 1.00781 -1.99988, bytes as in a little-endian file True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gguf==0.19.0 numpy==2.4.1
cd "$folder"
"$folder/venv/bin/python" -W error - <<'PYTHON' | tee seen
import sys
from pathlib import Path

import gguf
import numpy as np

assert sys.byteorder == "little"
numbers = np.tile(np.float32([1.0, -2.0]), 32)


def written(order, kind):
    """The tensor of a file as the reader gives it, and its bytes there."""
    name = f"{order.name}-{kind.name}.gguf"
    file = gguf.GGUFWriter(name, "llama", endianess=order)
    file.add_tensor("x", gguf.quants.quantize(numbers, kind), raw_dtype=kind)
    file.write_header_to_file(), file.write_kv_data_to_file(), file.write_tensors_to_file(), file.close()
    reader = gguf.GGUFReader(name)
    assert reader.endianess == order
    (tensor,) = reader.tensors
    return tensor, Path(name).read_bytes()[tensor.data_offset :]


for kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.Q8_0):
    big, its_bytes = written(gguf.GGUFEndian.BIG, kind)
    small, other_bytes = written(gguf.GGUFEndian.LITTLE, kind)
    data = f" data {big.data[0]} {big.data[1]}," if kind.name[0] == "F" else ""
    first, second = gguf.quants.dequantize(big.data, big.tensor_type).ravel()[:2]
    assert np.abs(gguf.quants.dequantize(small.data, small.tensor_type) - numbers).max() < 0.01
    print(f"{kind.name}:{data} dequantised {first:.6g} {second:.6g}, bytes as in a little-endian file {its_bytes == other_bytes}")
PYTHON
diff - seen <<'SEEN'
F32: data 1.0 -2.0, dequantised 4.6006e-41 2.69049e-43, bytes as in a little-endian file False
F16: data 1.0 -2.0, dequantised 3.57628e-06 1.14441e-05, bytes as in a little-endian file False
Q8_0: dequantised 1.00781 -1.99988, bytes as in a little-endian file True
SEEN
