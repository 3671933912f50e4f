# SPDX-License-Identifier: MIT
"""llama.cpp's server without compiling it: the options of ``llama-server`` that we print, on PyPI's ``xllamacpp``.

    pip install xllamacpp==2026.10.11549
    python benchmarks/llama_cpp_server.py -m base.gguf --lora-scaled left.gguf:1.0,right.gguf:0.0 --port 8080

It runs in an environment of its own and imports nothing of this project.
"""

import argparse
import sys
import time


def main() -> None:
    """Serve until the process is ended."""
    import xllamacpp

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--lora-scaled", action="append", default=[], help="FILE:SCALE,...")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ctx-size", type=int, default=4096)
    given = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = given.model
    params.hostnames, params.port = [given.host], given.port
    params.n_ctx, params.n_parallel = given.ctx_size, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = given.threads
    entries = [entry.rpartition(":") for option in given.lora_scaled for entry in option.split(",")]
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(file, float(scale)) for file, _, scale in entries]
    server = xllamacpp.Server(params)
    sys.stdout.write(f"listening at {server.listening_address}\n")
    sys.stdout.flush()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
