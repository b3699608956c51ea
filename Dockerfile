# The image of PorterLB: `docker build -t REGISTRY/porterlb:VERSION .`, or `make image` as root on Debian without docker.
# Two stages: the first one builds a virtual environment, the second one has that and the base's Python.
# BASE can be pinned: --build-arg BASE=python:3.11-slim@sha256:...
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_CERT PIP_PROXY
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
WORKDIR /src
RUN python -m venv /opt/porterlb
# Every file is checked against its hash. Before the code, so that a change of the code does not install them again.
COPY image/requirements.txt image/requirements-build.txt image/
RUN /opt/porterlb/bin/pip install --no-deps --require-hashes -r image/requirements.txt -r image/requirements-build.txt
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY image/prune.py image/
COPY porterlb porterlb
COPY exabgp exabgp
# Compiled modules are checked by hash, not by time, so that the same sources make the same bytes.
RUN /opt/porterlb/bin/pip install --no-deps --no-build-isolation . \
    && /opt/porterlb/bin/pip uninstall --quiet --yes setuptools pip \
    && cd / \
    && /opt/porterlb/bin/python -B /src/image/prune.py prune \
    && find /opt/porterlb -name __pycache__ -prune -exec rm -rf {} + \
    && SOURCE_DATE_EPOCH=0 /opt/porterlb/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/porterlb/lib \
    && /opt/porterlb/bin/python /src/image/prune.py smoke

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="PorterLB" \
      org.opencontainers.image.description="Load balancer for bare-metal Kubernetes: BGP first, Layer 2 when BGP is not there" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/porterlb /opt/porterlb
ENV PATH=/opt/porterlb/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# For the command line. The chart runs the manager as user 0 without root's capabilities: see docs/install.md.
USER 65532:65532
ENTRYPOINT ["porterlb"]
CMD ["manager"]
