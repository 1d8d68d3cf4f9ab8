# Sitelog as an image: any of its commands, a worker by default. Every step with a decision in it is a script in
# deploy/docker that the tests run as well (tests/acceptance/test_image.py).

FROM python:3.11.14-bookworm AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 UV_COMPILE_BYTECODE=1
# What changes rarely goes first: a change of our own code doesn't fetch the dependencies again.
COPY installer.lock ./
COPY deploy/docker/requirements.lock deploy/docker/install-dependencies.sh deploy/docker/
RUN deploy/docker/install-dependencies.sh /opt/sitelog
COPY pyproject.toml setup.py README.md LICENSE ./
COPY schemas schemas
COPY streams streams
COPY projections projections
COPY agents agents
COPY deploy deploy
COPY cli cli
RUN deploy/docker/install-sitelog.sh /opt/sitelog

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin sitelog
COPY --from=build /opt/sitelog /opt/sitelog
COPY deploy/docker/healthcheck.py /opt/sitelog/healthcheck.py
USER 10001
WORKDIR /tmp
ENV PATH=/opt/sitelog/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SITELOG_CONFIG=/etc/sitelog/sitelog.yaml \
    SITELOG__WORKER__WEB_HOST=0.0.0.0 \
    SITELOG__WORKER__WEB_PORT=8080
EXPOSE 8080
# A worker commits what it has in hand and leaves within `worker.shutdown_seconds`, 10 unless configured.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "/opt/sitelog/healthcheck.py"]
ENTRYPOINT ["sitelog"]
CMD ["worker", "projector"]
