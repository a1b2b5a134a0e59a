#!/usr/bin/env bash
# Train on several GPUs (or CPU processes): tools/dist_train.sh CONFIG GPUS [arguments of train.py]
#
# One machine: the port is chosen by itself. Several: run the same line on each with
#   NNODES=2 NODE_RANK=0|1 MASTER_ADDR=first-machine PORT=29500 tools/dist_train.sh CONFIG GPUS
# MAX_RESTARTS=3 starts all processes again when one dies, from the latest checkpoint of the run; on
# several machines the work dir must then be on a disk that they share.
set -eu
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [arguments of train.py]" >&2
    exit 2
fi
exec bash "$(dirname "$0")/_torchrun.sh" train.py "$2" "$1" "${@:3}"
