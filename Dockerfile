# The image of the manager: `docker build -t REGISTRY/porterlb:0.1.0 .`
# Python as the tests have it. The first stage builds a virtual environment, the second one has that and Python, without pip's cache or a compiler.
ARG PYTHON=3.11-slim

FROM python:${PYTHON} AS build
WORKDIR /src
COPY requirements.txt setup.cfg pyproject.toml README.md LICENSE ./
RUN python -m venv /opt/porterlb
COPY porterlb porterlb
COPY exabgp exabgp
# The versions are those that the tests ran with; tools for tests stay out.
RUN /opt/porterlb/bin/pip install --no-cache-dir --constraint requirements.txt . \
    && /opt/porterlb/bin/python -m compileall -q /opt/porterlb/lib \
    && /opt/porterlb/bin/pip uninstall --yes pip

FROM python:${PYTHON}
COPY --from=build /opt/porterlb /opt/porterlb
ENV PATH=/opt/porterlb/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Root, as the chart runs it, with no capability but NET_RAW; see docs/install.md.
USER 0:0
ENTRYPOINT ["porterlb"]
CMD ["manager"]
