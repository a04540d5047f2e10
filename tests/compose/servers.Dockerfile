# The contract tests beside the server of another image, whose whole file system is kept under /server. Build it from
# the repository's root; AGENTS_REDIS_HA_SERVER names that server.
ARG SERVER_IMAGE=redis:8.2
ARG PYTHON_IMAGE=python:3.11-slim
FROM ${SERVER_IMAGE} AS server

FROM ${PYTHON_IMAGE}
ENV PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /project
# What the tests need comes first, in a layer that all servers share and that outlives a change of the code.
COPY pyproject.toml ./
COPY src/agents_redis_ha/_version.py src/agents_redis_ha/
RUN touch README.md LICENSE \
  && python3 -m pip install --no-cache-dir --quiet --disable-pip-version-check '.[test]'

COPY --from=server / /server
# A path below /server is the same on both sides of the chroot: the server finds the files that the lab makes for it.
# An image holds no names of its own host, and a Sentinel is told one.
RUN mkdir /server/lab && ln -s / /server/server && echo "127.0.0.1 localhost" >>/server/etc/hosts
COPY tests/compose/redis-server /usr/local/bin/
ENV AGENTS_REDIS_HA_SERVER=/usr/local/bin/redis-server AGENTS_REDIS_HA_REQUIRE_ALL=1 \
  TMPDIR=/server/lab PYTHONPATH=/project/src

COPY src src
COPY tests/*.py tests/
COPY tests/support tests/support
COPY tests/contract tests/contract
CMD ["python3", "-m", "pytest", "tests/contract"]
