# Arize Phoenix: takes spans over OTLP, and can be asked for them. For tests only.
ARG PYTHON_IMAGE=python:3.11-slim
FROM ${PYTHON_IMAGE}
ENV PIP_ROOT_USER_ACTION=ignore
RUN python3 -m pip install --no-cache-dir --quiet --disable-pip-version-check 'arize-phoenix>=20,<21'
ENV PHOENIX_WORKING_DIR=/tmp/phoenix PHOENIX_TELEMETRY_ENABLED=false
CMD ["phoenix", "serve"]
