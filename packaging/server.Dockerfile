# syntax=docker/dockerfile:1
# The server: trains, quantises, packs and publishes. Build it in the checkout:
#   docker build -f packaging/server.Dockerfile -t finesight-server .
# For a GPU: --build-arg TORCH_INDEX=https://pypi.org/simple, then docker run --gpus all.
FROM debian:bookworm-slim AS build
ARG EXTRAS=trainer,quantize,matting
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /source
COPY . .
RUN scripts/apt-install g++ python3-dev python3-venv && python3 -m venv /opt/finesight && \
    HNSWLIB_NO_NATIVE=1 /opt/finesight/bin/pip install --no-cache-dir -c constraints.txt \
    --extra-index-url "$TORCH_INDEX" ".[$EXTRAS]"

FROM debian:bookworm-slim
RUN --mount=type=bind,source=scripts,target=/scripts \
    /scripts/apt-install python3 && rm -rf /var/lib/apt/lists/* && useradd --create-home --home-dir /data finesight
COPY --from=build /opt/finesight /opt/finesight
ENV PATH=/opt/finesight/bin:$PATH
USER finesight
WORKDIR /data
VOLUME /data
CMD ["edge-train", "--help"]
