# One image for every role: `docker run attn worker|edge|history|topics|...`.
FROM python:3.12-slim AS build

WORKDIR /src
# The steps of ops/deploy/image/install.sh, which tests run without Docker. The dependencies are a layer of their own, so a
# change of the code does not install them again. The next stage copies the whole environment.
COPY requirements requirements
COPY ops/deploy/image ops/deploy/image
RUN ops/deploy/image/install.sh dependencies . /opt/attn
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY streams streams
COPY api api
COPY ops ops
RUN ops/deploy/image/install.sh attn . /opt/attn

FROM python:3.12-slim

# A fixed uid: volumes and Kubernetes' runAsUser refer to it.
RUN useradd --uid 10001 --create-home --home-dir /home/attn --shell /usr/sbin/nologin attn \
 && install -d -o attn -g attn /data
COPY --from=build /opt/attn /opt/attn
# The base image has no bytecode of the standard library, and this user could not write it: each start would compile it.
RUN python -c "import compileall, sysconfig; compileall.compile_dir(sysconfig.get_path('stdlib'), quiet=2)"

ENV PATH=/opt/attn/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ATTN_HOST=0.0.0.0 \
    ATTN_DATA_DIR=/data \
    ATTN_LOG_FORMAT=json

USER 10001
WORKDIR /home/attn
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "ops.deploy.healthcheck"]
ENTRYPOINT ["attn"]
CMD ["edge"]
