# The serving side: no compiler, no PyTorch, not root. docs/deploy.md says how to run it.
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY pyproject.toml constraints.txt README.md ./
COPY src src
RUN python -m venv /opt/framegate && /opt/framegate/bin/pip install -c constraints.txt ".[serve,openvino]"

FROM python:3.11-slim
RUN groupadd --gid 10001 framegate \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin framegate
COPY --from=build /opt/framegate /opt/framegate
# The only place that is written to is TMPDIR: the root file system may be read-only.
ENV PATH=/opt/framegate/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TMPDIR=/tmp
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=2); c.request('GET', '/v2/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["framegate", "serve", "--bundle", "/models/shipped"]
CMD ["--host", "0.0.0.0", "--keys", "/keys/keys"]
