# syntax=docker/dockerfile:1
# A device in a container. Build it in the checkout: docker build -f packaging/device.Dockerfile -t finesight-device .
FROM debian:bookworm-slim AS wheels
ARG EXTRAS=kiosk
WORKDIR /source
COPY . .
RUN scripts/device-wheels /wheels "$EXTRAS"

FROM debian:bookworm-slim
ARG EXTRAS=kiosk
RUN --mount=type=bind,source=scripts,target=/scripts --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    /scripts/install-device --wheels /wheels --extras "$EXTRAS" --no-units && rm -rf /var/lib/apt/lists/*
USER finesight
WORKDIR /var/lib/finesight
VOLUME /var/lib/finesight
# the kiosk, if device.yaml has one
EXPOSE 8090
ENTRYPOINT ["edge"]
CMD ["run", "--safe"]
