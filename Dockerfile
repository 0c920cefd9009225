# nerd-tag with its default model: no torch, no compiler, no root.
#   docker build -t nerd-onnx .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" nerd-onnx articles.parquet tagged.parquet
ARG PYTHON=python:3.12-slim

FROM ${PYTHON} AS build
# Debian keeps one version of a package only, so that a pinned one could not be installed later.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The native encoder is compiled here; NERD_BUILD_NATIVE=1 makes a failed compilation an error.
RUN NERD_BUILD_NATIVE=1 python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${PYTHON}
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/
RUN python -m pip install --no-cache-dir -c /wheels/constraints.txt /wheels/*.whl && rm -r /wheels \
    && useradd --create-home --uid 1000 nerd
# A number: Kubernetes cannot see that a name is not root (runAsNonRoot).
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["nerd-tag"]
CMD ["--help"]
