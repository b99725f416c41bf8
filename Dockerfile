# Two images over one runtime: `study` re-runs a study, `serve` (the default) answers over HTTP.
#
#   docker build --build-arg TORCH_INDEX=URL_OF_CPU_WHEELS -t paretune .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL -p 127.0.0.1:8000:8000 \
#     -v ./my-bundle:/bundles/mine:ro -v ./keys.toml:/run/secrets/paretune-keys:ro paretune
#
# A bundle that is mounted below /bundles is served under its folder's name; what was loaded later lies in the volume.
# Without TORCH_INDEX pip's own configuration decides, and on most machines takes several gigabytes of CUDA.
# No heredocs, no --link: plain builders without BuildKit build it too.
ARG BASE=python:3.11-slim

# ---------------------------------------------------------------- everything that is installed, in one folder
FROM ${BASE} AS build
ARG TORCH_INDEX=""
ARG TORCH_VERSION="2.13.0"
ARG EXTRAS="bot"
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
SHELL ["/bin/sh", "-euc"]
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:${PATH}
WORKDIR /src
# torch first and by its exact version: any other spelling pulls gigabytes of CUDA.
RUN pip install ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} "torch==${TORCH_VERSION}"
COPY constraints.txt pyproject.toml LICENSE ./
# The dependencies over an empty package, so that a changed line of ours does not install them anew.
RUN mkdir -p src/paretune; \
    touch README.md src/paretune/__init__.py; \
    pip install --constraint constraints.txt setuptools; \
    pip install --constraint constraints.txt --no-build-isolation ".${EXTRAS:+[${EXTRAS}]}"
COPY README.md ./
COPY src src
RUN pip install --no-deps --no-build-isolation --force-reinstall .

# ---------------------------------------------------------------- base models, so that serving needs no network
FROM build AS models
ARG MODELS="minilm-l6"
COPY deploy/bake_models.py /src/deploy/
RUN PARETUNE_HOME=/opt/paretune python deploy/bake_models.py ${MODELS}

# ---------------------------------------------------------------- what both images share
FROM ${BASE} AS runtime
ARG VERSION="0.1.0"
ARG REVISION=""
LABEL org.opencontainers.image.title="paretune" \
      org.opencontainers.image.description="Which way of adapting a language model is worth its cost, and serving the winner" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# An entry in passwd, since libraries ask for the name of the user; a home that is writable under a read-only root.
RUN echo 'paretune:x:10001:10001:paretune:/tmp:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'paretune:x:10001:' >> /etc/group
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:${PATH} \
    HOME=/tmp \
    HF_HOME=/tmp/huggingface \
    HF_HUB_OFFLINE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    PARETUNE_OFFLINE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# ---------------------------------------------------------------- study
# Needs a cache volume with the study's assets (`paretune assets --fetch NAME` fills one), and a volume for its runs.
FROM runtime AS study
# Kernels in C++ are compiled for the processor that the container meets; without a compiler training is slower.
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
RUN install -d -o 10001 -g 10001 -m 0755 /cache /runs
COPY studies /studies
ENV PARETUNE_HOME=/cache
VOLUME ["/cache", "/runs"]
USER 10001:10001
WORKDIR /tmp
# Ctrl-C's signal: the current run is marked as cancelled, and the next call goes on from there.
STOPSIGNAL SIGINT
CMD ["paretune", "study", "/studies/demo.toml", "--runs", "/runs"]

# ---------------------------------------------------------------- serve
FROM runtime AS serve
RUN install -d -o 10001 -g 10001 -m 0755 /var/lib/paretune \
 && install -d -m 0755 /bundles
COPY --from=models /opt/paretune /opt/paretune
COPY deploy/health.py /opt/
ENV PARETUNE_HOME=/opt/paretune
VOLUME ["/var/lib/paretune"]
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-I", "/opt/health.py", "http://127.0.0.1:8000/livez"]
# A public address needs keys: without the secret this ends at once with one line that says so.
CMD ["paretune", "serve", "/bundles", "--base", "asset:minilm-l6", "--host", "0.0.0.0", "--port", "8000", "--store", "/var/lib/paretune", "--api-keys", "/run/secrets/paretune-keys"]
