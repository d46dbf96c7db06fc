# docker build -t darner .        What the image is for and how it is run: docs/production.md

FROM python:3.13-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/darner
COPY pyproject.toml README.md LICENSE requirements.txt requirements-dev.txt ./
COPY darner_core ./darner_core
# The versions are those that the tests ran with.
RUN /opt/darner/bin/pip install --no-cache-dir -c requirements.txt -c requirements-dev.txt '.[ctl,fast,http,thrift]'

FROM python:3.13-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home darner \
    && install -d -o darner -g darner /data
COPY --from=build /opt/darner /opt/darner
COPY conf/healthcheck.py /opt/darner/healthcheck.py
USER 10001
VOLUME /data
# 22133: memcache's protocol. 22180: the page, the HTTP API and the metrics.
EXPOSE 22133 22180
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s \
    CMD ["/opt/darner/bin/python", "/opt/darner/healthcheck.py", "http://127.0.0.1:22180/health/live"]
# tini passes signals on, and collects processes that have ended.
ENTRYPOINT ["tini", "--", "/opt/darner/bin/darner"]
CMD ["--data", "/data", "--host", "0.0.0.0", "--http", "0.0.0.0:22180"]
