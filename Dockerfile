# For machines with NVIDIA GPUs. Not built yet where this was written, which reaches no images:
# please report what happens.
#
#     docker build -t vito_mm .
#     docker run --gpus all --shm-size 16g -v /data:/vito_mm/data vito_mm tools/dist_train.sh CONFIG 8
#
# The CUDA version is that of the pinned torch (torch.version.cuda), for mmcv's ops.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        build-essential git libgl1 libglib2.0-0 make python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /vito_mm
COPY . .
# No GPU is seen while an image is built: say for which ones the ops are (A100, L40, H100).
ARG TORCH_CUDA_ARCH_LIST="8.0;8.9;9.0"
RUN FORCE_CUDA=1 VITO_MM_WHEEL_CACHE=0 make env && rm -rf /root/.cache
ENV PATH=/vito_mm/.venv/bin:$PATH
