#!/usr/bin/env bash
# Shared by dist_train.sh and dist_test.sh: _torchrun.sh SCRIPT GPUS [arguments of the script]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
script=$1 gpus=$2
shift 2
nnodes=${NNODES:-1} restarts=${MAX_RESTARTS:-0}
if [ "$nnodes" = 1 ]; then
    # Port 0 lets torchrun take a free one, so that runs side by side do not meet.
    place=(--standalone --rdzv-endpoint="localhost:${PORT:-0}")
    [ -n "${PORT:-}" ] && place=(--master-addr=127.0.0.1 --master-port="$PORT")
elif [ -z "${MASTER_ADDR:-}" ] || [ -z "${NODE_RANK:-}" ]; then
    echo "NNODES=$nnodes needs MASTER_ADDR (address of node 0) and NODE_RANK (0 to $((nnodes - 1)))" >&2
    exit 2
elif [ "$restarts" = 0 ]; then
    place=(--nnodes="$nnodes" --node-rank="$NODE_RANK" --master-addr="$MASTER_ADDR"
        --master-port="${PORT:-29500}")
else
    # A static rendezvous cannot bring the machines together a second time, and a store that outlives
    # a group leads the next one to the addresses of dead processes.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    place=(--nnodes="$nnodes" --rdzv-backend=c10d --rdzv-id="${RUN_ID:-vito_mm}"
        --rdzv-endpoint="$MASTER_ADDR:${PORT:-29500}")
fi
# So that a group that is started again can tell its own checkpoints from those of earlier runs.
[ "$restarts" = 0 ] || export VITO_MM_LAUNCHED_AT="$(date +%s)"
export PYTHONPATH="$(dirname "$here")${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m torch.distributed.run "${place[@]}" --nproc-per-node="$gpus" \
    --max-restarts="$restarts" "$here/$script" "$@" --launcher pytorch
