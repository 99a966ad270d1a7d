# The environment of `make setup` with the checkout in it:
#   docker build --build-arg DEVICE=gpu -t inpaint-grid .        # or DEVICE=cpu
# Both have the same packages, those of requirements.lock: the locked torch is the CUDA build, which runs on CPUs too
# (7.5 GB). They differ in what a container may see of the GPUs. `.git` stays out of the image: `python -m grid.commit`
# before the build writes .commit.json, with which runs name their commit.
ARG DEVICE=gpu

FROM python:3.11-slim-bookworm AS base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 grid
WORKDIR /home/grid/inpaint-grid
COPY Makefile bootstrap.lock requirements.lock ./
RUN make setup PYTHON=python && rm -rf /root/.cache
COPY . .
RUN mkdir -p runs report && chown grid:grid runs report
ENV PATH=/home/grid/inpaint-grid/.venv/bin:$PATH \
    MLFLOW_DISABLE_TELEMETRY=true
USER grid
ENTRYPOINT ["python", "launch.py"]
CMD ["demo"]

# No GPU, whatever the host has.
FROM base AS cpu
ENV CUDA_VISIBLE_DEVICES=

# What `docker run --gpus all` lets in; torch needs `compute`, nvidia-smi needs `utility`.
FROM base AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM ${DEVICE}
